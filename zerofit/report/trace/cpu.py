"""Traces of CPUs: each rank's time in operators of its main thread, in gloo's collectives, and in neither."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from zerofit.config.errors import UserError
from zerofit.report.trace import spans
from zerofit.report.trace.body import Analysis, Kernel, Rank, make_strip
from zerofit.report.trace.scan import Scan, Scanned, Track

COMPUTE, COMMUNICATE = "COMPUTATION", "COMMUNICATION"
HANDING = ("c10d::", "_c10d_functional::")
"""Begin the names of operators that hand a collective over to the thread that does it, or wait for it."""
AROUND = ("autograd::", "torch::autograd::")
"""Begin the names of what runs other operators, or waits in hooks, and computes nothing itself."""


def computes(name: str) -> bool:
    """Whether the operator called `name` is computation."""
    return not name.startswith((*HANDING, *AROUND))


def analyse(scanned: Scanned, progress: Callable[[], None]) -> Analysis:
    """The analysis of all ranks; `progress` is called once a rank. Raises UserError for a trace without operators."""
    steps, base = scanned.steps, min(one.base_us for one in scanned.ranks)
    rows, strips = [], {}
    kernels: dict[str, Kernel] = {}
    for one in scanned.ranks:
        if not one.operators.start:
            raise UserError(f"{one.path} has no operators and no kernels: there is nothing to analyse")
        first, last = _range(one)
        compute, communication = (spans.within(found, first, last) for found in _busy(one))
        rows.append(_split(one.rank, compute, communication, last - first))
        start, end = _range(one, steps[0]) if steps else (first, last)
        shift = one.base_us - base  # then all are on one clock, where the ranks are of one host
        busy = {"compute": compute, "communication": communication}
        strips[one.rank] = {kind: spans.moved(spans.within(when, start, end), shift) for kind, when in busy.items()}
        for kernel in _operators(one, first, last):
            old = kernels.get(kernel.name, Kernel(kernel.name, kernel.kind, 0.0, 0))
            kernels[kernel.name] = Kernel(kernel.name, kernel.kind, old.us + kernel.us, old.count + kernel.count)
        progress()
    sums = {kind: sum(one.us for one in kernels.values() if one.kind == kind) for kind in (COMPUTE, COMMUNICATE)}
    whole = sum(sums.values())
    return Analysis(
        device="cpu",
        steps=steps,
        left_out=[],
        ranks=rows,
        kinds=[{"kind": kind, "us": us, "share": us / whole if whole else 0.0} for kind, us in sums.items()],
        kernels=sorted(kernels.values(), key=lambda kernel: (-kernel.us, kernel.name)),
        idle=[],
        launch=[],
        collectives={one.rank: len(one.collectives.start) for one in scanned.ranks},
        strip=make_strip(strips),
    )


def _range(one: Scan, step: int | None = None) -> tuple[float, float]:
    """From the first step's start to the last one's end, or one step's; without marks all of the operators' time."""
    marks = [mark for mark in one.marks if step is None or mark.step == step]
    if marks:
        return min(mark.start for mark in marks), max(mark.start + mark.length for mark in marks)
    starts, lengths = np.array(one.operators.start), np.array(one.operators.length)
    return float(starts.min()), float((starts + lengths).max())


def _busy(one: Scan) -> tuple[spans.Spans, spans.Spans]:
    """When the main thread is in an operator that computes, and when a collective is under way."""
    track = one.operators
    chosen = _main(one, track) & np.array([computes(name) for name in one.names], dtype=bool)[np.array(track.name)]
    compute = spans.union(np.array(track.start)[chosen], np.array(track.length)[chosen])
    return compute, spans.union(np.array(one.collectives.start), np.array(one.collectives.length))


def _main(one: Scan, track: Track) -> np.typing.NDArray[np.bool_]:
    """Which events are the main thread's: the one that marks steps, else the one with most of the time."""
    threads = np.array(track.thread)
    if one.marks:
        return threads == one.marks[0].thread
    return threads == np.argmax(np.bincount(threads, weights=np.array(track.length)))


def _split(rank: int, compute: spans.Spans, communication: spans.Spans, span: float) -> Rank:
    computing, communicating = spans.total(compute), spans.total(communication)
    hidden = spans.both(compute, communication)
    return Rank(
        rank=rank,
        span_us=span,
        compute_us=computing,
        communication_us=communicating,
        memory_us=0.0,
        exposed_communication_us=communicating - hidden,
        non_compute_us=communicating - hidden,
        idle_us=span - computing - communicating + hidden,
        overlap=hidden / communicating if communicating else None,
        device="cpu",
    )


def _operators(one: Scan, first: float, last: float) -> list[Kernel]:
    """The main thread's operators, each without those that it calls; and collectives."""
    track = one.operators
    chosen = np.flatnonzero(_main(one, track))
    starts, lengths, names = (np.array(column)[chosen] for column in (track.start, track.length, track.name))
    order = np.lexsort((-lengths, starts))
    times: dict[str, list[float]] = {}
    above: list[tuple[float, str]] = []  # end and name of the operators that the next one may lie in
    for start, length, number in zip(starts[order], lengths[order], names[order], strict=True):
        if not first <= start < last:
            continue
        while above and above[-1][0] <= start:
            above.pop()
        if above:
            times[above[-1][1]][0] -= length
        name = one.names[number]
        entry = times.setdefault(name, [0.0, 0.0])
        entry[0] += length
        entry[1] += 1
        above.append((start + length, name))
    kinds = {name: COMMUNICATE if name.startswith(HANDING) else COMPUTE for name in times}
    made = [Kernel(name, kinds[name], max(0.0, us), int(count)) for name, (us, count) in times.items()]
    return made + _collectives(one, first, last)


def _collectives(one: Scan, first: float, last: float) -> list[Kernel]:
    times: dict[str, list[float]] = {}
    for start, length, number in zip(one.collectives.start, one.collectives.length, one.collectives.name, strict=True):
        if first <= start < last:
            entry = times.setdefault(one.names[number], [0.0, 0.0])
            entry[0] += length
            entry[1] += 1
    return [Kernel(name, COMMUNICATE, us, int(count)) for name, (us, count) in times.items()]
