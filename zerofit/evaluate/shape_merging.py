"""From an evaluation's parts to its result: shapes.parquet, then evaluation.json, which says that it is finished."""

from __future__ import annotations

from pathlib import Path

from zerofit.evaluate.merging import finish
from zerofit.evaluate.parts import Parts
from zerofit.evaluate.shape_request import ShapeRequest
from zerofit.measure.shapes import SHAPES, ShapeRow, figures

ROWS = "shapes.parquet"


def merge(directory: Path, request: ShapeRequest, parts: Parts[ShapeRow]) -> None:
    """Write both, and remove the parts. Rows of a mix stand together."""
    settings = request.settings
    rows, wall = parts.all()
    rows.sort(key=lambda row: settings.mixes.index(row.mix))
    SHAPES.write(directory / ROWS, rows)
    finish(
        directory,
        parts,
        {
            "format": 1,
            "task": "cad",
            "model": settings.model.name,
            "weights": str(settings.model.weights),
            "data": request.data,
            "models": settings.models,
            "mixes": list(settings.mixes),
            "sampling": settings.sampling.model_dump(mode="json"),
            "seed": settings.seed,
            "constrained": settings.constrained,
            "dtype": settings.dtype,
            "figures": figures(rows),
            "caption": next((row.caption for row in rows if row.caption), None),
            "wall_s": round(wall, 3),
            "tokens_s": round(sum(row.tokens for row in rows) / max(wall, 1e-9), 1),
        },
    )
