"""A sheet of parts: the picture of each true part, and beside it those that were made of what was told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from zerofit.report.pages.files import finite, png
from zerofit.report.pages.parts import Made, Sheet, Shown
from zerofit.report.pages.units import NONE, fixed, number
from zerofit.report.pages.writing import shown

COLUMNS = (
    "id",
    "mix",
    "caption",
    "truth",
    "prediction",
    "valid",
    "reason",
    "chamfer",
    "iou",
    "truth_png",
    "prediction_png",
)
ROOM = 2_500_000
"""Bytes of all pictures of a sheet: with Plotly's bundle, and in base64, that is a page of 5.5 MB."""
LONGEST = 160
"""Characters of a reason."""

Row = Mapping[str, Any]


def sheet(every: Sequence[Row], mixes: Sequence[str], most: int | None = None) -> Sheet | None:
    """The models that have pictures, the first `most` of them, a model once; null where there are none."""
    models: dict[str, dict[str, Row]] = {}
    for row in every:
        if row["truth_png"] is not None or row["prediction_png"] is not None:
            models.setdefault(str(row["id"]), {})[str(row["mix"])] = row
    items: list[Shown] = []
    room = ROOM
    for id, told in models.items():
        room -= _size(told)
        if room < 0 or len(items) == most:
            break
        items.append(_shown(id, told, mixes))
    if not items:
        return None
    note = f"The first {len(items)} of {len({row['id'] for row in every}):,} models."
    return Sheet("Shapes", items, note)


def why(row: Row) -> str:
    """Why a part is not valid, or has no distance, in a line."""
    words = " ".join(str(row["reason"] or "no reason was written").split())
    return words if len(words) <= LONGEST else f"{words[: LONGEST - 1]}…"


def _size(told: Mapping[str, Row]) -> int:
    """Bytes of its pictures; the true one is the same in all."""
    return max(len(row["truth_png"] or b"") for row in told.values()) + sum(
        len(row["prediction_png"] or b"") for row in told.values()
    )


def _shown(id: str, told: Mapping[str, Row], mixes: Sequence[str]) -> Shown:
    there = [told[mix] for mix in mixes if mix in told]
    captions = [str(row["caption"]) for row in there if row["caption"]]
    truth = next((row["truth_png"] for row in there if row["truth_png"]), None)
    return Shown(
        name=id,
        caption=shown(max(captions, key=len, default="")),
        truth=png(truth),
        commands=shown(str(there[0]["truth"])),
        made=[_made(row) for row in there],
    )


def _made(row: Row) -> Made:
    valid = bool(row["valid"])
    values = [("chamfer × 1,000", _scaled(row["chamfer"])), ("IoU", fixed(finite(row["iou"])))]
    return Made(
        told=str(row["mix"]),
        source=png(row["prediction_png"]),
        valid=valid,
        reason="" if valid and not row["reason"] else why(row),
        values=[value for value in values if value[1] != NONE],
        commands=shown(str(row["prediction"])),
    )


def _scaled(value: Any) -> str:
    distance = finite(value)
    return number(None if distance is None else 1000 * distance)
