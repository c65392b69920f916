"""Figures of evaluations with their 95 % intervals: how they are read, said and drawn."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from zerofit.report.pages.charts import rounded
from zerofit.report.pages.files import Read, finite
from zerofit.report.pages.units import count, number, percent

FILE = "evaluation.json"
"""Of a finished evaluation."""


class Estimate(Read):
    """A figure, mostly a fraction, with its 95 % interval."""

    value: float
    low: float
    high: float


def of_run(directory: Path, rows: str) -> list[Path]:
    """The evaluation.json of those of a run's evaluations that have a file of `rows`, the oldest first."""
    found = [path for path in directory.glob(f"evaluations/*/{FILE}") if path.with_name(rows).is_file()]
    return sorted(found, key=lambda path: (len(path.parent.name), path.parent.name))


def interval(one: Estimate) -> str:
    """A fraction: 61.4 % (55.0 to 67.1)."""
    return f"{percent(one.value)} ({100 * one.low:.1f} to {100 * one.high:.1f})"


def sampled(sampling: dict[str, Any], seed: int) -> str:
    """How completions were drawn."""
    temperature = finite(sampling.get("temperature"))
    drawn = "the likeliest token" if temperature == 0 else f"temperature {number(temperature)}"
    return f"{drawn}, up to {count(finite(sampling.get('max_tokens')))} tokens, seed {seed}"


def whiskers(every: Sequence[Estimate | None]) -> dict[str, Any]:
    """Intervals of bars in percent, as Plotly draws them."""
    return {
        "type": "data",
        "symmetric": False,
        "array": [None if one is None else rounded(100 * (one.high - one.value)) for one in every],
        "arrayminus": [None if one is None else rounded(100 * (one.value - one.low)) for one in every],
        "thickness": 1.5,
        "width": 6,
    }
