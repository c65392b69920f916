"""A reward in a recipe: what a completion is worth. Short forms: `math_correct`, `{math_correct: 0.5}`."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import AfterValidator, Field, field_validator, model_validator

from zerofit.config.errors import did_you_mean
from zerofit.config.ranges import Number
from zerofit.config.section import Section

BUILT_IN = ("math_correct", "think_format", "length")
FUNCTION = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")


class Reward(Section):
    """One reward, and how much of it counts."""

    name: str
    """`math_correct`, `think_format`, `length`, or a function of your own as `package.module:function`."""
    weight: Number = 1.0
    """What it is multiplied by before rewards are added up."""
    options: dict[str, Any] = {}
    """Settings of that reward, by name: see docs/rewards.md."""

    @model_validator(mode="before")
    @classmethod
    def _short(cls, value: Any) -> Any:
        if isinstance(value, str):
            return {"name": value}
        if isinstance(value, dict) and len(value) == 1 and not value.keys() & cls.model_fields.keys():
            ((name, weight),) = value.items()
            return {"name": name, "weight": weight}
        return value

    @field_validator("name")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in BUILT_IN and not FUNCTION.fullmatch(value):
            near = did_you_mean(value, BUILT_IN)
            raise ValueError(f"is to be one of {', '.join(BUILT_IN)}, or package.module:function, not {value!r}{near}")
        return value


def _each_once(rewards: tuple[Reward, ...]) -> tuple[Reward, ...]:
    names = [reward.name for reward in rewards]
    for name in names:
        if names.count(name) > 1:  # figures are kept by name
            raise ValueError(f"{name} is listed {names.count(name)} times; list it once, with its weight")
    return rewards


Rewards = Annotated[tuple[Reward, ...], Field(min_length=1), AfterValidator(_each_once)]
"""`rewards:` of a recipe: their weighted sum is what a completion is worth."""
