"""A run's memory on its page: what its peak was predicted to be for, beside what it turned out to be."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from zerofit.plan.prediction import Prediction
from zerofit.plan.spec import RunSpec
from zerofit.report.outlook import verdict
from zerofit.report.pages.charts import bars
from zerofit.report.pages.files import finite
from zerofit.report.pages.parts import Facts, Part, Section
from zerofit.report.pages.units import fixed

KINDS = ("weights", "gradients", "optimizer")
"""What is told apart in what was measured, too; all else is the rest."""


def section(spec: RunSpec, found: Prediction, result: Mapping[str, Any]) -> Section:
    """Bars against the card, and the figures behind the verdict."""
    rows = [("predicted", split_of(found))]
    holds, measured = result.get("holds"), finite(result.get("peak_alloc_gib"))
    if measured is not None and isinstance(holds, dict):
        rows.append(("measured", {kind: finite(size) or 0.0 for kind, size in holds.items()}))
    card = spec.hardware.memory_gib
    chart = bars(
        "memory-predicted",
        "Memory of a GPU at its fullest moment",
        "GiB",
        [name for name, _ in rows],
        [(kind, [split.get(kind, 0.0) for _, split in rows]) for kind in (*KINDS, "rest")],
        stacked=True,
        limit=(f"{card:g} GiB of the card", card),
        totals=[sum(split.values()) for _, split in rows],
        note="What was measured of gradients and optimizer is of the optimizer’s step, perhaps not the fullest moment.",
        wide=True,
    )
    parts: list[Part] = [chart, Facts("Prediction", facts(found, measured))]
    return Section("memory", "Memory", parts)


def split_of(found: Prediction) -> dict[str, float]:
    """The predicted peak by KINDS, and the rest."""
    split = {kind: found.memory.split.get(kind, 0.0) for kind in KINDS}
    return split | {"rest": max(0.0, found.peak_gib - sum(split.values()))}


def facts(found: Prediction, measured: float | None) -> list[tuple[str, str]]:
    """Names and values."""
    memory, fit = found.memory, found.fit
    how = "a step played through" if memory.exact else "formulas"
    rows = [("by", how), ("fullest in", memory.phase), ("verdict", verdict(fit))]
    rows += [
        ("needed of the card", f"{fixed(fit.needed_gib)} GiB; without the allocator's slack {fixed(fit.least_gib)}")
    ]
    rows += [("of the host", f"{fixed(fit.host_needed_gib, 1)} GiB")]
    rows += [(f"peak in {phase}", f"{fixed(peak)} GiB") for phase, peak in memory.phases.items()]
    if measured is not None:
        rows.append(("measured", f"{fixed(measured)} GiB, off by {100 * (found.peak_gib / measured - 1):+.1f} %"))
    rows += [("lower by", lever) for lever in found.levers]
    return rows + [("not modelled", what) for what in memory.not_modelled]
