"""The page of a trace alone, or of two that were compared."""

from __future__ import annotations

from pathlib import Path

from zerofit.report.pages import timeline
from zerofit.report.pages.charts import bars
from zerofit.report.pages.files import Read, mapping, parsed
from zerofit.report.pages.parts import Figure, Notes, Page, Part, Section, Table
from zerofit.report.pages.timeline import Trace
from zerofit.report.pages.units import fixed, microseconds, percent

DRAWN = 12


class Change(Read):
    """A kernel's time in both."""

    name: str
    us_a: float
    us_b: float


class Two(Read):
    """The trace.json of a comparison."""

    format: int
    a: Trace
    b: Trace
    kernels: tuple[Change, ...] = ()
    findings: tuple[str, ...] = ()


def page(path: Path) -> Page:
    """The page of the trace.json at `path`. Raises UserError where it is damaged."""
    if {"a", "b"} <= mapping(path).keys():
        return _two(parsed(path, Two))
    trace = parsed(path, Trace)
    sections = [Section("timeline", "Timeline", timeline.parts(trace))]
    return Page("trace", Path(trace.source).name or "trace", (_about(trace),), headline(trace), sections)


def headline(trace: Trace) -> list[Figure]:
    """Of all ranks together."""
    whole = sum(one.span_us for one in trace.ranks)
    if not whole:
        return []
    figures = [Figure("Ranks", str(trace.world_size or len(trace.ranks)), "", f"{len(trace.ranks)} traced")]
    figures.append(_mean(trace, "Traced", [one.span_us for one in trace.ranks]))
    computing = sum(one.compute_us for one in trace.ranks) / whole
    figures.append(Figure("Computing", fixed(100 * computing, 1), "%", "of the traced time"))
    exposed = [one.exposed_communication_us for one in trace.ranks]
    if all(value is not None for value in exposed):
        share = sum(value or 0.0 for value in exposed) / whole
        figures.append(Figure("Exposed communication", fixed(100 * share, 1), "%", "not hidden by computing"))
    idle = sum(one.idle_us for one in trace.ranks) / whole
    figures.append(Figure("Idle", fixed(100 * idle, 1), "%", "of the traced time"))
    return figures


def _mean(trace: Trace, name: str, values: list[float]) -> Figure:
    value, _, unit = microseconds(sum(values) / len(values)).partition(" ")
    return Figure(name, value, unit, "mean of the ranks")


def _about(trace: Trace) -> str:
    many = "steps" if len(trace.steps) > 1 else "step"
    steps = f", {many} {', '.join(map(str, trace.steps))}" if trace.steps else ""
    return f"{trace.source}{steps}"


def _two(two: Two) -> Page:
    first: list[Part] = [Notes("Findings", two.findings)] if two.findings else []
    changes = sorted(two.kernels, key=lambda one: -abs(one.us_b - one.us_a))
    if changes:
        top = changes[:DRAWN]
        named = [(name, [getter(one) / 1000 for one in top]) for name, getter in (("a", _a), ("b", _b))]
        labels = [timeline.plain_name(one.name, 36) for one in top]
        first.append(
            bars("changes", "Kernels that changed most", "ms, all ranks", labels, named, wide=True, head="kernel")
        )
        rows = [
            (
                timeline.plain_name(one.name),
                microseconds(one.us_a),
                microseconds(one.us_b),
                microseconds(one.us_b - one.us_a),
                percent(one.us_b / one.us_a - 1) if one.us_a else "new",
            )
            for one in changes
        ]
        first.append(Table("Kernels", ("kernel", "a", "b", "difference", ""), rows))
    sections = [Section("difference", "Difference", first)] if first else []
    for letter, trace in (("a", two.a), ("b", two.b)):
        name = f"{letter}: {Path(trace.source).name}"
        sections.append(Section(f"trace-{letter}", name, timeline.parts(trace, f"{letter}-")))
    return Page("traces compared", "a and b", (f"a: {_about(two.a)}", f"b: {_about(two.b)}"), _both(two), sections)


def _a(one: Change) -> float:
    return one.us_a


def _b(one: Change) -> float:
    return one.us_b


def _both(two: Two) -> list[Figure]:
    before = {one.name: one for one in headline(two.a)}
    return [
        Figure(one.name, one.value, one.unit, f"a: {before[one.name].value} {before[one.name].unit}".rstrip())
        for one in headline(two.b)
        if one.name in before
    ]
