"""`data:` of the task cad: CAD models, what is told of each, and which of that a row sees."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

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
    views: Annotated[int, Field(ge=1, le=4), NO_BOOL] = 1
    """Images of each model, from as many sides; a row that sees an image sees one of them, drawn anew each epoch."""
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

    def shows(self, modality: str) -> bool:
        """Whether any row sees that."""
        return any(modality in one.inputs.name.split("+") for one in self.shares)
