"""`hardware:` in a recipe: what of a card may be used."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, WithJsonSchema

from zerofit.config.section import Section

UNITS = {"GiB": 1.0, "MiB": 1 / 1024}
SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*")


def parse_size(value: Any) -> Any:
    """`11GiB` or `11264MiB` -> GiB. Raises ValueError for another unit; what is no text is left as it is."""
    if isinstance(value, bool):
        raise ValueError("takes a size such as 11GiB or 11264MiB, or a number of GiB")
    if not isinstance(value, str):
        return value
    found = SIZE.fullmatch(value)
    unit = found and (found[2] or "GiB")
    if found is None or unit not in UNITS:
        raise ValueError(f"{value} is no size: use for example 11GiB or 11264MiB, or a number of GiB")
    return float(found[1]) * UNITS[unit]


Size = Annotated[
    float,
    Field(gt=0.0),
    BeforeValidator(parse_size),
    WithJsonSchema(
        {
            "anyOf": [
                {"exclusiveMinimum": 0.0, "type": "number"},
                {"pattern": r"^\s*\d+(\.\d+)?\s*(GiB|MiB)?\s*$", "type": "string"},
            ]
        }
    ),
]
"""GiB."""


class Limits(Section):
    """What of a card may be used."""

    memory_cap: Size | None = None
    """Memory of each GPU that PyTorch may take, `11GiB`, `11264MiB` or a number of GiB: the plan counts on no more, and
    what asks for more fails as on a card of that size; null: all of it. On a CPU it does nothing."""
