"""What `zerofit eval` was asked for, of a run on CAD models."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from zerofit.config.cad import COMBINATIONS, Inputs
from zerofit.config.errors import UserError, did_you_mean
from zerofit.config.grpo import Sampling
from zerofit.config.model import CadMllm
from zerofit.evaluate.asked import Dtype

PICTURES = 24


@dataclass(frozen=True)
class AskedShapes:
    """The options, each with its default."""

    target: str
    """A run (RUN, RUN@STEP)."""
    data: tuple[str, ...] = ()
    """Other CAD models: a path, or data fields to change."""
    mix: tuple[str, ...] | None = None
    """What is told of them, besides nothing; null: what the recipe trains."""
    constrained: bool = False
    """Hold texts to the grammar: then all of them are command texts."""
    limit: int | None = None
    """The first so many CAD models."""
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    max_tokens: int | None = None
    """null: what the longest sample of the data has, or what the model's context leaves."""
    seed: int = 0
    """Decides what is drawn."""
    pictures: int = PICTURES
    """Of so many CAD models, the first ones."""
    dtype: Dtype | None = None
    """Of the weights; null: by the device."""
    batch: int | None = None
    """Texts at once on a rank; null: as many as fit."""
    output: Path | None = None
    """Directory; null: beside the run."""

    def check(self) -> None:
        """Raise UserError for what is nothing at all."""
        if self.dtype is not None and self.dtype not in get_args(Dtype):
            known = get_args(Dtype)
            raise UserError(f"--dtype {self.dtype} is none of {', '.join(known)}{did_you_mean(self.dtype, known)}")
        if not 0 < self.top_p <= 1:
            raise UserError(f"--top-p {self.top_p:g}: is a probability, above 0 and at most 1")

    def sampling(self, max_tokens: int) -> Sampling:
        """How tokens are drawn."""
        return Sampling(temperature=self.temperature, top_p=self.top_p, top_k=self.top_k, max_tokens=max_tokens)

    def command(self) -> str:
        """The command that asks for it, for a shell."""
        usual = vars(AskedShapes(self.target))
        words = ["zerofit", "eval", self.target]
        options: dict[str, Any] = {name: value for name, value in vars(self).items() if value != usual[name]}
        for name, value in options.items():
            option = f"--{name.replace('_', '-')}"
            if name == "data":
                words += [word for one in self.data for word in (option, one)]
            elif name == "mix":
                words += [option, ",".join(value)]
            elif value is True:
                words.append(option)
            else:
                words += [option, str(value)]
        return shlex.join(words)


def parse_mix(text: str) -> tuple[str, ...]:
    """`text,points+text` -> ("text", "text+points"), each once and in the order of COMBINATIONS. Raises UserError."""
    return ordered(text.split(","))


def ordered(names: Sequence[str]) -> tuple[str, ...]:
    """Those mixes, each once and in the order of COMBINATIONS. Raises UserError."""
    try:
        known = {Inputs.named(name).name for name in names}
    except ValueError as error:
        raise UserError(f"--mix: {error}") from None
    return tuple(mix for mix in COMBINATIONS if mix in known)


def check_seen(inputs: Inputs, model: CadMllm, option: str) -> None:
    """Raise UserError where a model has no encoder for what is told."""
    blind = {"points": inputs.points and model.points is None, "vision": inputs.image and model.vision is None}
    for field, lacking in blind.items():
        if lacking:
            raise UserError(f"{option}: the run's model has no encoder for that: its recipe gives no model.{field}")
