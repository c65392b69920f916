"""`data:` of the task cad: CAD models, what is told of each, and which of that a row sees."""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import combinations
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationInfo, WithJsonSchema, field_validator, model_validator

from zerofit.config.errors import did_you_mean
from zerofit.config.ranges import NO_BOOL, BelowOne, Count, NonNegative, Number, Positive
from zerofit.config.section import Section

MODALITIES = ("text", "points", "image")
"""What may be told of a model, in the order in which a prompt has it."""
UNTOLD = "none"
"""The name of inputs without any: an empty caption."""


@dataclass(frozen=True)
class Inputs:
    """What a row is conditioned on."""

    text: bool
    points: bool
    image: bool

    @property
    def name(self) -> str:
        """As a recipe has it: `text+points`."""
        seen = zip(MODALITIES, (self.text, self.points, self.image), strict=True)
        return "+".join(modality for modality, there in seen if there) or UNTOLD

    @classmethod
    def named(cls, name: str) -> Inputs:
        """Those of a name, its words in any order. Raises ValueError for one that is none."""
        words = [] if name.strip() == UNTOLD else [word.strip() for word in name.split("+")]
        if len(set(words)) < len(words) or not set(words) <= set(MODALITIES):
            raise ValueError(f"{name!r} is none of {', '.join(COMBINATIONS)}{did_you_mean(name, COMBINATIONS)}")
        return cls(*(modality in words for modality in MODALITIES))


COMBINATIONS = (*("+".join(some) for count in (1, 2, 3) for some in combinations(MODALITIES, count)), UNTOLD)
"""The names of all inputs, the untold ones last."""


@dataclass(frozen=True)
class Share:
    """Inputs, and how often a row sees them."""

    inputs: Inputs
    share: float
    """Of the rows; all shares are 1 together."""


MOST_VIEWS = 4
"""Sides from which a model may be seen."""


def parse_at_once(value: Any) -> Any:
    """`2` -> (2, 2), `[1, 4]` -> (1, 4). Raises ValueError for what is no number from 1 to 4, nor a range of these."""
    bounds = value if isinstance(value, list | tuple) else (value, value)
    whole = len(bounds) == 2 and all(isinstance(one, int) and not isinstance(one, bool) for one in bounds)
    if not whole or not 1 <= bounds[0] <= bounds[1] <= MOST_VIEWS:
        raise ValueError(
            f"{json.dumps(value, default=str)} is neither a number from 1 to {MOST_VIEWS} nor a range of these: use "
            f"for example 2, or [1, {MOST_VIEWS}]"
        )
    return tuple(bounds)


_NUMBER = {"maximum": MOST_VIEWS, "minimum": 1, "type": "integer"}
AtOnce = Annotated[
    tuple[int, int],
    BeforeValidator(parse_at_once),
    WithJsonSchema({"anyOf": [_NUMBER, {"items": _NUMBER, "maxItems": 2, "minItems": 2, "type": "array"}]}),
]
"""The fewest and the most."""


class Cad(Section):
    """CAD models, and how they become samples."""

    source: Literal["parts", "deepcad", "omni_cad"]
    """parts (embedded: machine parts made on the spot), deepcad (JSON or h5 of DeepCAD, with captions), omni_cad (as
    CAD-MLLM's Omni-CAD is unpacked). Layouts: docs/cad.md."""
    path: str | None = None
    """Directory; parts takes none."""
    caption: str = "caption"
    """deepcad: the field of captions.jsonl that a prompt has; `expert`, `beginner`, ... of Text2CAD's."""
    mix: dict[str, NonNegative] = Field(default={"text": 1.0})
    """What a row sees, by weight, for example {text: 1, text+points: 1, text+points+image: 2}; drawn anew each epoch,
    as a function of (seed, epoch, sample) alone. `none` beside others: a share that sees nothing, so that the model
    also learns what models are like where nothing is told."""
    points: Count = 2048
    """Points of a cloud; clouds in files are thinned to so many, or drawn from again where they have fewer."""
    views: Annotated[int, Field(ge=1, le=MOST_VIEWS), NO_BOOL] = 1
    """Images of each model, from as many sides."""
    views_at_once: AtOnce = (1, 1)
    """How many of them a row sees that sees images: a number, or a range such as [1, 4] of which one is drawn for each
    row. Which ones is drawn, too, anew each epoch; they come in the order of the sides. Evaluations show the most, of
    the first sides."""
    mean: tuple[Number, Number, Number] = (0.485, 0.456, 0.406)
    """Subtracted per channel from pixels in 0..1; ImageNet's, as DINOv2 has it."""
    std: tuple[Positive, Positive, Positive] = (0.229, 0.224, 0.225)
    """Divides per channel after the mean."""
    validation: BelowOne = 0.0
    """Fraction of the training models held out for validation where the data has no such split; 0: the test split."""
    limit: Count | None = None
    """Use only this many training models (drawn with `train.seed`)."""
    max_length: Count = 1024
    """Tokens per sample, those of clouds and images included; longer ones are left out and counted."""
    parts: Count = 2000
    """parts: training models."""
    test_parts: Count = 200
    """parts: test models, which share no parameters with training."""
    on_bad_item: Literal["fail", "skip"] = "fail"
    """A model that cannot be used stops the run with its id and the reason, or is left out (and counted)."""

    @field_validator("mix", mode="before")
    @classmethod
    def _combinations(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        named = {Inputs.named(str(name)).name: weight for name, weight in value.items()}
        if len(named) < len(value):
            raise ValueError(f"names the same inputs twice: {', '.join(map(str, value))}")
        return named

    @field_validator("mix")
    @classmethod
    def _some(cls, value: dict[str, float]) -> dict[str, float]:
        if not any(weight for name, weight in value.items() if name != UNTOLD):
            raise ValueError("shows nothing: give one of its inputs a weight above 0, for example {text: 1}")
        return value

    @field_validator("views_at_once")
    @classmethod
    def _enough(cls, value: tuple[int, int], info: ValidationInfo) -> tuple[int, int]:
        views = info.data.get("views", MOST_VIEWS)
        if value[1] > views:
            raise ValueError(f"a row cannot see {value[1]} images at once of models that have {views}: set data.views")
        return value

    @model_validator(mode="after")
    def _path(self) -> Cad:
        if (self.source == "parts") != (self.path is None):
            raise ValueError(
                "parts are embedded and take no path" if self.path is not None else f"{self.source} needs a path"
            )
        return self

    @property
    def shares(self) -> tuple[Share, ...]:
        """The inputs of `mix` that have a weight, in the order of COMBINATIONS."""
        whole = sum(self.mix.values())
        return tuple(
            Share(Inputs.named(name), self.mix[name] / whole) for name in COMBINATIONS if self.mix.get(name, 0.0) > 0
        )

    @property
    def views_of_evaluations(self) -> tuple[int, ...]:
        """The sides that evaluations show: the first ones, as many as a row sees at most."""
        return tuple(range(self.views_at_once[1]))

    @property
    def images_on_average(self) -> float:
        """Images that a row sees; 0 where none sees any."""
        return sum(one.share for one in self.shares if one.inputs.image) * sum(self.views_at_once) / 2

    def shows(self, modality: str) -> bool:
        """Whether any row sees that."""
        return any(modality in one.inputs.name.split("+") for one in self.shares)
