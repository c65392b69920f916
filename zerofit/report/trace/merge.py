"""One trace of all ranks, for https://ui.perfetto.dev: streamed, so that no rank's trace is ever in memory."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from zerofit.config.errors import UserError
from zerofit.report.trace.events import Event, Trace
from zerofit.report.trace.scan import GPU, Scan, Scanned

ON_GPU = (*GPU, "gpu_user_annotation", "cuda_sync")
FLOWS = 2**40
"""How far the numbers of two ranks' flows lie apart."""
PROCESSES = 1000
"""Numbers of processes that each rank has for its own: the CPU's is rank * 1000, GPUs and the rest follow."""


def merge(scanned: Scanned, target: Path, progress: Callable[[], None]) -> None:
    """Write all ranks' events to `target` (gzip where it ends with .gz), processes and flows of each kept apart.

    Times are those of the hosts' clocks, where these agree on when a step was; else the first common step begins at the
    same moment on all ranks. Raises UserError where the file is one of the traces, or a trace cannot be read.
    """
    if not target.name.endswith((".json", ".json.gz")):
        raise UserError(f"--merge {target}: is to end with .json or .json.gz")
    if any(target.resolve() == one.path.resolve() for one in scanned.ranks):
        raise UserError(f"--merge {target}: is itself one of the traces; name another file")
    shifts = _shifts(scanned)
    part = target.with_name(f".{os.getpid()}.{target.name}")
    try:
        with _writer(part) as file:
            file.write('{"schemaVersion": 1, "displayTimeUnit": "ms", "traceEvents": [\n')
            comma = ""
            for one in scanned.ranks:
                for event in _events(one, shifts[one.rank]):
                    file.write(comma + json.dumps(event, separators=(",", ":")))
                    comma = ",\n"
                progress()
            file.write("\n]}\n")
        os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)


def _writer(path: Path) -> IO[str]:
    opened: Any = gzip.open if path.name.endswith(".gz") else open
    file: IO[str] = opened(path, "wt", encoding="utf-8")
    return file


def _shifts(scanned: Scanned) -> dict[int, float]:
    """What is added to each rank's times, in microseconds, so that the earliest step begins at 0."""
    steps = scanned.steps
    if not steps:
        first = min((_first(one) for one in scanned.ranks), default=0.0)
        return {one.rank: one.base_us - first for one in scanned.ranks}
    marks = {one.rank: next(mark for mark in one.marks if mark.step == steps[0]) for one in scanned.ranks}
    starts = {one.rank: one.base_us + marks[one.rank].start for one in scanned.ranks}
    ends = {rank: start + marks[rank].length for rank, start in starts.items()}
    if max(starts.values()) < min(ends.values()):  # all in the same step at one moment: one clock, or good ones
        earliest = min(starts.values())
        return {one.rank: one.base_us - earliest for one in scanned.ranks}
    return {rank: -mark.start for rank, mark in marks.items()}


def _first(one: Scan) -> float:
    starts = [one.base_us + start for track in (one.operators, one.collectives) for start in track.start]
    return min(starts, default=one.base_us)


def _events(one: Scan, shift: float) -> Iterator[Event]:
    """A rank's events under processes of their own."""
    processes: dict[str, int] = {}
    named: set[int] = set()
    for event in Trace(one.path).events():
        phase, args = event.get("ph"), event.get("args")
        if phase == "M" and event.get("name") in ("process_name", "process_labels", "process_sort_index"):
            continue  # Kineto names all GPUs of a host, in every rank's trace
        old = str(event.get("pid", ""))
        if old not in processes:
            processes[old] = one.rank * PROCESSES + len(processes) % PROCESSES
        own = processes[old]
        if phase == "X" and own not in named:
            named.add(own)
            yield from _names(one.rank, own, event)
        changed = {**event, "pid": own}
        if isinstance(event.get("ts"), (int, float)):
            changed["ts"] = round(event["ts"] + shift, 3)
        if isinstance(event.get("id"), int):  # of flows, by which a launch is tied to its kernel
            changed["id"] = event["id"] + one.rank * FLOWS
        if args is not None:
            changed["args"] = args
        yield changed


def _names(rank: int, process: int, event: Event) -> Iterator[Event]:
    """What a process is called: by the first event in it."""
    old, category = event.get("pid"), event.get("cat")
    if not isinstance(old, int):
        name = f"rank {rank}: {old}"
    else:
        name = f"rank {rank}: GPU {old}" if category in ON_GPU else f"rank {rank}"
    yield {"ph": "M", "name": "process_name", "pid": process, "tid": 0, "args": {"name": name}}
    yield {"ph": "M", "name": "process_sort_index", "pid": process, "tid": 0, "args": {"sort_index": process}}
