"""What an evaluation on CAD models writes, a parquet row for each model and what was told of it; and the figures."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Any

from zerofit.measure.parquet_rows import Form
from zerofit.measure.pass_at_k import Estimate, mean_over_problems, one_each, resampled

if TYPE_CHECKING:
    import pyarrow as pa

CONFIDENCE = 0.95


@dataclass(frozen=True)
class ShapeRow:
    """A command text that a model wrote, beside the true one."""

    id: str
    mix: str
    """What it was told: `text+points`, ...; `none`: nothing."""
    caption: str | None
    """The CAD model's, told or not; null where it has none."""
    truth: str
    prediction: str
    parsed: bool
    """Whether it is a whole command text."""
    valid: bool
    """Whether OpenCASCADE makes a valid solid of it."""
    reason: str | None
    """Why it is not, or why a distance is missing; null otherwise."""
    command_accuracy: float | None
    """Null where it was not parsed."""
    parameter_accuracy: float | None
    """The same; null as well where no command that has parameters is the true one."""
    chamfer: float | None
    """Of clouds of points on both surfaces; null where there is no valid solid."""
    iou: float | None
    """Of both volumes; null where there is no valid solid."""
    tokens: int
    """Length of what was written, its end included."""
    stopped: bool
    """Whether it ended by itself, not at the most tokens that it was allowed."""
    truth_png: bytes | None
    prediction_png: bytes | None
    """Pictures; null beyond the first rows of a mix, and where there is no valid solid."""


def figures(rows: Iterable[ShapeRow]) -> dict[str, dict[str, Any]]:
    """Of each mix, with 95 % intervals over CAD models as {value, low, high}.

    parsed, valid: shares of all. command_accuracy, parameter_accuracy: means over all, in which what is null counts as
    0. chamfer (the median), chamfer_mean, iou: over those that are valid; null where there is none. Besides `shapes`,
    `truncated` (the share that was cut off) and `tokens`.
    """
    by_mix: dict[str, list[ShapeRow]] = {}
    for row in rows:
        by_mix.setdefault(row.mix, []).append(row)
    return {mix: _figures(those) for mix, those in by_mix.items()}


def _figures(rows: Sequence[ShapeRow]) -> dict[str, Any]:
    import numpy as np

    distances, ious = _known(row.chamfer for row in rows), _known(row.iou for row in rows)
    return {
        "shapes": len(rows),
        "parsed": asdict(one_each(sum(row.parsed for row in rows), len(rows))),
        "valid": asdict(one_each(sum(row.valid for row in rows), len(rows))),
        "command_accuracy": asdict(mean_over_problems([row.command_accuracy or 0.0 for row in rows])),
        "parameter_accuracy": asdict(mean_over_problems([row.parameter_accuracy or 0.0 for row in rows])),
        "chamfer": _of(distances, lambda values: resampled(values, np.median, CONFIDENCE, 0)),
        "chamfer_mean": _of(distances, lambda values: resampled(values, np.mean, CONFIDENCE, 0)),
        "iou": _of(ious, mean_over_problems),
        "truncated": sum(not row.stopped for row in rows) / len(rows),
        "tokens": {"mean": fmean(row.tokens for row in rows), "max": max(row.tokens for row in rows)},
    }


def _known(values: Iterable[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def _of(values: Sequence[float], estimate: Callable[[Sequence[float]], Estimate]) -> dict[str, float] | None:
    return asdict(estimate(values)) if values else None


def _schema() -> pa.Schema:
    """The fields of ShapeRow."""
    import pyarrow as pa

    return pa.schema(
        [
            pa.field("id", pa.string(), nullable=False),
            pa.field("mix", pa.string(), nullable=False),
            pa.field("caption", pa.string()),
            pa.field("truth", pa.string(), nullable=False),
            pa.field("prediction", pa.string(), nullable=False),
            pa.field("parsed", pa.bool_(), nullable=False),
            pa.field("valid", pa.bool_(), nullable=False),
            pa.field("reason", pa.string()),
            pa.field("command_accuracy", pa.float64()),
            pa.field("parameter_accuracy", pa.float64()),
            pa.field("chamfer", pa.float64()),
            pa.field("iou", pa.float64()),
            pa.field("tokens", pa.int64(), nullable=False),
            pa.field("stopped", pa.bool_(), nullable=False),
            pa.field("truth_png", pa.large_binary()),
            pa.field("prediction_png", pa.large_binary()),
        ]
    )


SHAPES = Form(ShapeRow, _schema)
"""How they lie in a file."""
