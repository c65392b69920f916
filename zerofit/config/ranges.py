"""Numbers of a recipe, by the range they lie in. None takes true or false for a number."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field
from pydantic_core import PydanticKnownError


def _no_bool(value: Any) -> Any:
    """`flip: true` would otherwise be 1.0 (always) without a word."""
    if isinstance(value, bool):
        raise PydanticKnownError("float_type")
    return value


# The bounds stand before NO_BOOL: the other way round they are lost to the JSON Schema.
NO_BOOL = BeforeValidator(_no_bool)
Whole = Annotated[int, Field(ge=0), NO_BOOL]
Count = Annotated[int, Field(ge=1), NO_BOOL]
Number = Annotated[float, NO_BOOL]
NonNegative = Annotated[float, Field(ge=0.0), NO_BOOL]
Positive = Annotated[float, Field(gt=0.0), NO_BOOL]
Fraction = Annotated[float, Field(ge=0.0, le=1.0), NO_BOOL]
BelowOne = Annotated[float, Field(ge=0.0, lt=1.0), NO_BOOL]
AboveZero = Annotated[float, Field(gt=0.0, le=1.0), NO_BOOL]
