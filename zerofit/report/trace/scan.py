"""The first look at traces: which ranks there are, what is missing, and the events of the CPU."""

from __future__ import annotations

import re
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from zerofit.config.errors import UserError
from zerofit.report.trace.events import Event, Trace
from zerofit.report.trace.files import rank_of_name

GPU = ("kernel", "gpu_memcpy", "gpu_memset", "Kernel", "Memcpy", "Memset")
MOST_RANKS = 2**20
STEP = re.compile(r"ProfilerStep\s*#\s*(\d+)")


@dataclass(frozen=True)
class Mark:
    """One `ProfilerStep#n` of the CPU."""

    step: int
    start: float
    length: float
    thread: object


@dataclass
class Track:
    """Events of one kind: when, how long, of which name (a number in `Scan.names`) and thread (in `Scan.threads`)."""

    start: array[float] = field(default_factory=lambda: array("d"))
    length: array[float] = field(default_factory=lambda: array("d"))
    name: array[int] = field(default_factory=lambda: array("l"))
    thread: array[int] = field(default_factory=lambda: array("l"))


@dataclass
class Scan:
    """One rank's trace, looked through once. Times in microseconds of its own clock."""

    path: Path
    rank: int = 0
    world_size: int | None = None
    named: bool = False
    """Whether the trace itself tells its rank."""
    whole: bool = False
    """Whether its last step is known to be there to its end, as in a trace of ours."""
    gpu_events: int = 0
    base_us: float = 0.0
    """What is added to its times to make them those of the host's clock."""
    marks: list[Mark] = field(default_factory=list)
    operators: Track = field(default_factory=Track)
    collectives: Track = field(default_factory=Track)
    """gloo's, of whatever thread."""
    names: list[str] = field(default_factory=list)
    threads: list[object] = field(default_factory=list)

    @property
    def steps(self) -> list[int]:
        return sorted({mark.step for mark in self.marks})


def scan(path: Path) -> Scan:
    """Look a trace through. Raises UserError where it cannot be read."""
    found, trace = Scan(path), Trace(path)
    names: dict[str, int] = {}
    threads: dict[object, int] = {}
    for event in trace.events():
        if event.get("ph") != "X":
            continue
        category, name = event.get("cat"), str(event.get("name"))
        start, length = _number(event, "ts", path), _number(event, "dur", path)
        if category in GPU:
            found.gpu_events += 1
        elif category == "cpu_op" or (category == "user_annotation" and name.startswith("gloo:")):
            track = found.operators if category == "cpu_op" else found.collectives
            track.start.append(start)
            track.length.append(length)
            track.name.append(names.setdefault(name, len(names)))
            track.thread.append(threads.setdefault(str(event.get("tid")), len(threads)))
        elif category != "gpu_user_annotation" and (step := STEP.fullmatch(name)):
            thread = threads.setdefault(str(event.get("tid")), len(threads))
            found.marks.append(Mark(int(step[1]), start, length, thread))
    found.names, found.threads = list(names), list(threads)
    _describe(found, trace)
    return found


def _number(event: Event, name: str, path: Path) -> float:
    value = event.get(name, 0)
    if isinstance(value, (int, float)) and abs(value) < 2**62:  # neither infinite nor NaN
        return float(value)
    raise UserError(f"{path} is not read: an event's {name} is no time: {str(value)[:40]}")


def _describe(found: Scan, trace: Trace) -> None:
    """What the trace says of itself; the file's name where it says nothing."""
    told, base = trace.metadata.get("distributedInfo"), trace.metadata.get("baseTimeNanoseconds")
    if isinstance(base, int) and abs(base) < 2**63:
        found.base_us = base / 1000
    found.whole = isinstance(trace.metadata.get("zerofit"), dict)
    if isinstance(told, dict) and (rank := _count(told.get("rank"))) is not None:
        found.named, found.rank, found.world_size = True, rank, _count(told.get("world_size"))


def _count(value: Any) -> int | None:
    """A number of ranks, where it is one that there may be."""
    return value if isinstance(value, int) and 0 <= value <= MOST_RANKS else None


@dataclass(frozen=True)
class Scanned:
    """All ranks that there are, in order, and what is missing, in words."""

    ranks: list[Scan]
    world_size: int | None
    problems: list[str]

    @property
    def steps(self) -> list[int]:
        """Those that every rank has."""
        return sorted(set.intersection(*(set(one.steps) for one in self.ranks)))

    @property
    def on_gpu(self) -> list[Scan]:
        """The ranks with events of a GPU."""
        return [one for one in self.ranks if one.gpu_events]


def scan_all(paths: Sequence[Path], progress: Callable[[], None]) -> Scanned:
    """Look all traces through. Raises UserError where one cannot be read, or whose rank it is cannot be told."""
    ranks, problems = [], []
    for path in paths:
        one = scan(path)
        if not one.named:
            told = rank_of_name(path)
            if told is None and len(paths) > 1:
                raise UserError(
                    f"{path} does not tell its rank (distributedInfo.rank): name the files rank-0.json.gz and so on"
                )
            one.rank = told or 0
            problems.append(f"{path.name} has no distributedInfo: taken for rank {one.rank}")
        ranks.append(one)
        progress()
    ranks.sort(key=lambda one: one.rank)
    for one, other in zip(ranks, ranks[1:], strict=False):
        if one.rank == other.rank:
            raise UserError(f"{one.path} and {other.path} are both of rank {one.rank}; keep the traces of one window")
    sizes = {one.world_size for one in ranks if one.world_size is not None}
    if len(sizes) > 1:
        problems.append(f"the ranks do not agree on how many they are: {', '.join(map(str, sorted(sizes)))}")
    world = max(sizes, default=None)
    missing = sorted(set(range(world or 0)) - {one.rank for one in ranks})
    if missing:
        have = f"{len(ranks)} of {world} ranks are there"
        problems.append(f"{have}; missing: {listed(missing)}")
    return Scanned(ranks, world, [*problems, *_unlike(ranks)])


def _unlike(ranks: list[Scan]) -> list[str]:
    """In what ranks differ that should not."""
    problems = []
    if not any(one.marks for one in ranks):
        problems.append("no rank has marks of steps (ProfilerStep#n): figures are of the whole trace")
    elif len({tuple(one.steps) for one in ranks}) > 1:
        differing = "; ".join(f"rank {one.rank}: {listed(one.steps) or 'none'}" for one in ranks)
        problems.append(f"the ranks have traced other steps: {differing}")
    without = [one.rank for one in ranks if not one.gpu_events]
    if len(without) == len(ranks):
        problems.append(
            "no rank has events of a GPU: the run was on CPUs, or its profiler lacked ProfilerActivity.CUDA; "
            "figures are of operators, collectives and idle time of the main thread"
        )
    elif without:
        problems.append(f"no events of a GPU, and so no figures, of rank {listed(without)}")
    return problems


def listed(numbers: Sequence[int]) -> str:
    """1, 3 to 5: ascending numbers in words."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and number == parts[-1][-1] + 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    words = []
    for part in parts:
        words += [f"{part[0]} to {part[-1]}"] if len(part) > 2 else [str(number) for number in part]
    return ", ".join(words)
