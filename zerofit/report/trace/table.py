"""An analysis in the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from zerofit.report.trace.body import Analysis
from zerofit.report.trace.scan import listed
from zerofit.report.trace.words import short

SHOWN = 8
"""Kernels that are shown."""


def table(found: Analysis) -> str:
    """What is missing, how each rank's time divides, the longest kernels, and the findings."""
    parts = [heading(found), _columns(_ranks(found), left=()), _columns(_kernels(found), left=(3,))]
    if found.idle:
        parts.insert(2, _columns(_causes(found), left=()))
    parts += ["\n".join(f"not there: {problem}" for problem in found.problems)] if found.problems else []
    return "\n\n".join([*parts, "\n".join(f"- {line}" for line in found.findings)])


def heading(found: Analysis) -> str:
    """One line: of what the figures are."""
    what = {"cuda": "GPUs", "cpu": "CPUs"}[found.device]
    steps = f"steps {listed(found.steps)}" if len(found.steps) > 1 else f"step {listed(found.steps)}"
    of = f" of {found.world_size}" if found.world_size is not None else ""
    without = f" (without {listed(found.left_out)}, which may be cut off)" if found.left_out else ""
    return f"{len(found.ranks)}{of} ranks on {what}, {steps if found.steps else 'no steps marked'}{without}"


def _ranks(found: Analysis) -> list[list[str]]:
    rows = [["rank", "ms", "compute", "communication", "exposed", "memory", "idle", "overlap"]]
    for rank in found.ranks:
        times = (rank.compute_us, rank.communication_us, rank.exposed_communication_us, rank.memory_us, rank.idle_us)
        shares = ["-" if us is None else f"{100 * rank.share(us):.1f} %" for us in times]
        overlap = "-" if rank.overlap is None else f"{100 * rank.overlap:.1f} %"
        late = "late" if rank.rank in found.stragglers else ""
        rows.append([str(rank.rank), f"{rank.span_us / 1000:.1f}", *shares, overlap, late])
    return rows


def _causes(found: Analysis) -> list[list[str]]:
    names = ("host_wait", "kernel_wait", "other")
    rows = [["rank", "idle ms", *(name.replace("_", " ") for name in names), "launches", "short", "delay us"]]
    launch = {entry["rank"]: entry for entry in found.launch}
    for rank in found.ranks:
        us = {entry["cause"]: entry["us"] for entry in found.idle if entry["rank"] == rank.rank}
        own: dict[str, Any] = launch.get(rank.rank, {"count": 0, "short_kernels": 0, "mean_delay_us": None})
        delay = "-" if own["mean_delay_us"] is None else f"{own['mean_delay_us']:.1f}"
        rows.append(
            [
                str(rank.rank),
                f"{rank.idle_us / 1000:.1f}",
                *(f"{us.get(name, 0.0) / 1000:.1f}" for name in names),
                f"{own['count']:,}",
                f"{own['short_kernels']:,}",
                delay,
            ]
        )
    return rows


def _kernels(found: Analysis) -> list[list[str]]:
    whole = found.kernel_us
    rows = [["share", "ms", "calls", {"cuda": "kernel", "cpu": "operator, without those it calls"}[found.device]]]
    for kernel in found.kernels[:SHOWN]:
        share = kernel.us / whole if whole else 0.0
        rows.append([f"{100 * share:.1f} %", f"{kernel.us / 1000:.1f}", f"{kernel.count:,}", short(kernel.name)])
    return rows


def _columns(rows: Sequence[Sequence[str]], left: Sequence[int]) -> str:
    """Aligned: to the right, save the columns `left`, and a last one that the heading lacks."""
    heads = len(rows[0])
    widths = [max(len(row[column]) for row in rows) for column in range(heads)]
    lines = []
    for row in rows:
        cells = [
            cell.ljust(width) if column in left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row[:heads], widths, strict=True))
        ]
        lines.append("  ".join([*cells, *row[heads:]]).rstrip())
    return "\n".join(lines)
