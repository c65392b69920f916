"""Two analyses beside each other: which kernels changed, and what that did, by rank and step."""

from __future__ import annotations

import statistics
from typing import Any

from zerofit.report.trace.body import FORMAT, LONGEST_NAME, TOP, Analysis
from zerofit.report.trace.gate import FIGURES
from zerofit.report.trace.words import percent, short

POINTS = 0.01
"""Change of a share that is worth a word."""


def differences(a: Analysis, b: Analysis) -> list[tuple[str, float, float]]:
    """(kernel, its microseconds in A, in B), for a rank and a step in the mean, those that changed most first."""
    times: dict[str, list[float]] = {}
    for place, found in enumerate((a, b)):
        for kernel in found.kernels:
            times.setdefault(kernel.name, [0.0, 0.0])[place] += kernel.us / found.parts
    rows = [(name, one, other) for name, (one, other) in times.items()]
    return sorted(rows, key=lambda row: (-abs(row[2] - row[1]), row[0]))


def findings(a: Analysis, b: Analysis) -> list[str]:
    """What changed, in words."""
    lines = []
    if a.device != b.device:
        lines.append("one of them is of GPUs, the other of CPUs: times say little")
    if len(a.ranks) != len(b.ranks):
        lines.append(f"{len(a.ranks)} ranks in A, {len(b.ranks)} in B: figures are a rank's, in the mean")
    first, second = _span(a), _span(b)
    if first:
        change = second / first - 1
        how = "as long" if abs(change) < 0.005 else f"{percent(abs(change))} {'longer' if change > 0 else 'shorter'}"
        lines.append(f"a step takes {first / 1000:.1f} ms in A and {second / 1000:.1f} ms in B, {how}")
    for name in ("idle", "compute", "communication", "exposed communication"):
        one, other = _share(a, name), _share(b, name)
        if abs(other - one) >= POINTS:
            word = "rises" if other > one else "falls"
            lines.append(f"{name} {word} from {percent(one)} to {percent(other)} of the time")
    rows = differences(a, b)
    for word, chosen in (
        ("gained", next((row for row in rows if row[2] > row[1]), None)),
        ("lost", next((row for row in rows if row[2] < row[1]), None)),
    ):
        if chosen is not None:
            by = abs(chosen[2] - chosen[1]) / 1000
            lines.append(f"the kernel that {word} most time: {short(chosen[0])}, {by:.3f} ms a step")
    for word, own, others in (("only in A", a, b), ("only in B", b, a)):
        alone = {kernel.name for kernel in own.kernels} - {kernel.name for kernel in others.kernels}
        if alone:
            us = sum(kernel.us for kernel in own.kernels if kernel.name in alone) / own.parts
            lines.append(f"{word}: {len(alone)} kernels, {us / 1000:.3f} ms a step")
    return lines


def body(a: Analysis, b: Analysis, sources: tuple[str, str]) -> dict[str, Any]:
    """The comparison's JSON."""
    kernels = [
        {"name": name[:LONGEST_NAME], "us_a": one, "us_b": other} for name, one, other in differences(a, b)[:TOP]
    ]
    return {
        "format": FORMAT,
        "a": a.body(sources[0]),
        "b": b.body(sources[1]),
        "kernels": kernels,
        "findings": findings(a, b),
    }


def table(a: Analysis, b: Analysis) -> str:
    """The comparison in the terminal."""
    rows = [("A ms a step", "B ms a step", "kernel")]
    rows += [(f"{one / 1000:.3f}", f"{other / 1000:.3f}", short(name)) for name, one, other in differences(a, b)[:12]]
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    lines = [f"{one:>{widths[0]}}  {other:>{widths[1]}}  {name}" for one, other, name in rows]
    return "\n".join([*lines, "", *(f"- {line}" for line in findings(a, b))])


def _span(found: Analysis) -> float:
    """Microseconds of a step, in the mean over ranks."""
    return statistics.fmean(rank.span_us for rank in found.ranks) / max(1, len(found.steps))


def _share(found: Analysis, name: str) -> float:
    return statistics.fmean(FIGURES[name](rank) or 0.0 for rank in found.ranks)
