"""A trace: what each rank did in a step, where it waited, which kernels took the time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from zerofit.report.pages.charts import Values, bars
from zerofit.report.pages.files import Read, found
from zerofit.report.pages.parts import Chart, Key, Notes, Part, Section, Table
from zerofit.report.pages.units import NONE, count, fixed, microseconds, percent

LANES = ("compute", "communication", "memory")
"""What a strip shows of a rank, one below another: they overlap in time."""
RANKS = 16
"""Whose strips are drawn, at most: the stragglers and then the first ones."""
KERNELS = 25
IDLE = (3, 4, 5, 6)
"""Colours that are not those of work."""
CAUSES = {"host_wait": "the host had not launched", "kernel_wait": "between kernels", "other": "other"}


class Rank(Read):
    """Times of a rank, in µs."""

    rank: int
    span_us: float
    compute_us: float
    communication_us: float
    memory_us: float = 0.0
    exposed_communication_us: float | None = None
    non_compute_us: float = 0.0
    idle_us: float = 0.0
    overlap: float | None = None
    device: str = "cuda"


class Kind(Read):
    """Of kernels."""

    kind: str
    us: float
    share: float


class Kernel(Read):
    """One kernel, on all ranks."""

    name: str
    kind: str = ""
    us: float
    share: float
    count: int


class Idle(Read):
    """What a rank waited for."""

    rank: int
    cause: str
    us: float


class Strip(Read):
    """A step of a rank: (start, length, what), µs."""

    rank: int
    spans: tuple[tuple[float, float, str], ...]


class Trace(Read):
    """trace.json."""

    format: int
    source: str = ""
    world_size: int | None = None
    steps: tuple[int, ...] = ()
    problems: tuple[str, ...] = ()
    ranks: tuple[Rank, ...] = ()
    kinds: tuple[Kind, ...] = ()
    kernels: tuple[Kernel, ...] = ()
    idle: tuple[Idle, ...] = ()
    stragglers: tuple[int, ...] = ()
    launch: tuple[dict[str, Any], ...] = ()
    strip: tuple[Strip, ...] = ()
    findings: tuple[str, ...] = ()


def section(path: Path) -> Section | None:
    """The tab of a run's page; null where the run was not traced."""
    trace = found(path, Trace)
    return None if trace is None else Section("timeline", "Timeline", parts(trace))


def parts(trace: Trace, prefix: str = "") -> list[Part]:
    """All that there is to show; `prefix` keeps the charts of two traces apart."""
    said: list[Part] = []
    if trace.findings:
        said.append(Notes("Findings", trace.findings))
    if trace.problems:
        said.append(Notes("What is missing", trace.problems))
    drawn = (strip(trace, prefix), breakdown(trace, prefix), waits(trace, prefix), kinds(trace, prefix))
    tables = (launches(trace), times(trace), kernels(trace.kernels))
    return [*said, *(part for part in (*drawn, *tables) if part is not None)]


def strip(trace: Trace, prefix: str) -> Chart | None:
    """One step, a row a rank."""
    chosen = [*(one for one in trace.strip if one.rank in trace.stragglers)]
    chosen += [one for one in trace.strip if one.rank not in trace.stragglers]
    shown = sorted(chosen[:RANKS], key=lambda one: one.rank)
    if not any(one.spans for one in shown):
        return None
    lanes = [lane for lane in LANES if any(what == lane for one in shown for _, _, what in one.spans)]
    data = []
    for lane in lanes:
        spans = [(one.rank, start, length) for one in shown for start, length, what in one.spans if what == lane]
        data.append(
            {
                "type": "bar",
                "orientation": "h",
                "name": lane,
                "offsetgroup": lane,
                "y": [f"rank {rank}" for rank, _, _ in spans],
                "base": [round(start / 1000, 4) for _, start, _ in spans],
                "x": [round(length / 1000, 4) for _, _, length in spans],
                "hovertemplate": f"%{{y}}: {lane}<br>%{{base:.3f}} to %{{x:.3f}} ms<extra></extra>",
                "marker": {"pattern": {"shape": ""}},
                "meta": {"colour": LANES.index(lane)},
            }
        )
    keys = [Key(lane, LANES.index(lane), "area", "", (at,)) for at, lane in enumerate(lanes)]
    busy = {
        one.rank: {lane: sum(length for _, length, what in one.spans if what == lane) for lane in lanes}
        for one in shown
    }
    rows = [(f"rank {rank}", *(microseconds(lanes_[lane]) for lane in lanes)) for rank, lanes_ in busy.items()]
    left = len(trace.strip) - len(shown)
    few = f" {left} more ranks are not drawn." if left else ""
    step = f"Step {trace.steps[len(trace.steps) // 2]}" if trace.steps else "One step"
    return Chart(
        name=f"{prefix}strip",
        title="What each rank did",
        unit="",
        summary=f"{step} of {len(shown)} ranks, when each computed and communicated; the table has the sums.",
        data=data,
        layout={
            "barmode": "group",
            "bargap": 0.22,
            "hovermode": "closest",
            "yaxis": {
                "autorange": "reversed",
                "type": "category",
                "labels": True,
                "categoryorder": "array",
                "categoryarray": [f"rank {one.rank}" for one in shown],
            },
            "xaxis": {"title": {"text": "ms since the step began"}, "rangemode": "tozero", "tickformat": ",~r"},
        },
        table=Table("Busy in this step", ("", *lanes), rows),
        keys=keys if len(keys) > 1 else (),
        note=f"{step}. A lane for each kind of work: where lanes lie above one another, it overlaps.{few}",
        height=80 + (16 + 10 * len(lanes)) * len(shown),
        wide=True,
    )


def breakdown(trace: Trace, prefix: str) -> Chart | None:
    """Where the traced time went."""
    ranks = trace.ranks
    if not ranks:
        return None
    exposed = [one.exposed_communication_us for one in ranks]
    known = all(value is not None for value in exposed)
    named: list[tuple[str, Values]] = [("computing", [one.compute_us / 1000 for one in ranks])]
    if known:
        named.append(("communication, exposed", [(value or 0.0) / 1000 for value in exposed]))
    rest = [max(0.0, one.non_compute_us - (value or 0.0)) / 1000 for one, value in zip(ranks, exposed, strict=True)]
    named.append(("copies and other" if known else "communication and copies, exposed", rest))
    named.append(("idle", [one.idle_us / 1000 for one in ranks]))
    labels = [f"rank {one.rank}" for one in ranks]
    title = "Where the time went"
    return bars(f"{prefix}breakdown", title, "ms", labels, named, stacked=True, head="rank")


def waits(trace: Trace, prefix: str) -> Chart | None:
    """Why ranks were idle."""
    ranks = sorted({one.rank for one in trace.idle})
    if not any(one.us for one in trace.idle):
        return None
    causes = dict.fromkeys(one.cause for one in trace.idle)
    table = {(one.rank, one.cause): one.us / 1000 for one in trace.idle}
    named = [(CAUSES.get(cause, cause), [table.get((rank, cause), 0.0) for rank in ranks]) for cause in causes]
    labels = [f"rank {rank}" for rank in ranks]
    return bars(
        f"{prefix}waits", "Why the device was idle", "ms", labels, named, stacked=True, head="rank", colours=IDLE
    )


def kinds(trace: Trace, prefix: str) -> Chart | None:
    """Kinds of kernels."""
    if len(trace.kinds) < 2:
        return None
    labels = [one.kind.lower() for one in trace.kinds]
    values = [("share", [100 * one.share for one in trace.kinds])]
    return bars(f"{prefix}kinds", "Kinds of kernels", "% of busy time, all ranks", labels, values, decimals=1)


def times(trace: Trace) -> Table | None:
    """A row a rank."""
    if not trace.ranks:
        return None
    head = (
        "rank",
        "device",
        "traced",
        "computing",
        "communication",
        "exposed",
        "overlapped",
        "copies",
        "idle",
        "idle share",
    )
    rows = [
        (
            str(one.rank),
            one.device,
            *map(microseconds, (one.span_us, one.compute_us, one.communication_us, one.exposed_communication_us)),
            percent(one.overlap),
            microseconds(one.memory_us),
            microseconds(one.idle_us),
            percent(one.idle_us / one.span_us) if one.span_us else NONE,
        )
        for one in trace.ranks
    ]
    strong = [i for i, one in enumerate(trace.ranks) if one.rank in trace.stragglers]
    note = "Bold: ranks that the others wait for." if strong else ""
    return Table("Ranks", head, rows, words=(0, 1), strong=strong, note=note)


def kernels(every: Sequence[Kernel]) -> Table | None:
    """Those that took longest."""
    if not every:
        return None
    rows = [
        (
            plain_name(one.name),
            one.kind.lower(),
            microseconds(one.us),
            percent(one.share),
            count(one.count),
            microseconds(one.us / max(1, one.count)),
        )
        for one in every[:KERNELS]
    ]
    head = ("kernel", "kind", "time", "share", "calls", "each")
    return Table("Kernels that took longest, all ranks", head, rows, words=(0, 1))


def launches(trace: Trace) -> Table | None:
    """How kernels were launched, whatever the analysis counted."""
    if not trace.launch:
        return None
    fields = list(dict.fromkeys(field for one in trace.launch for field in one))
    rows = [tuple(_cell(one.get(field)) for field in fields) for one in trace.launch]
    return Table(
        "Kernel launches", tuple(field.replace("_us", ", µs").replace("_", " ") for field in fields), rows, wide=False
    )


def plain_name(name: str, most: int = 110) -> str:
    """A kernel's name, of which templates make a paragraph."""
    return name if len(name) <= most else f"{name[: most - 1]}…"


def _cell(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return NONE if value is None else str(value)
    return count(value) if isinstance(value, int) else fixed(value, 1)
