"""What `zerofit eval` was asked for, of a language model."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from zerofit.config.errors import UserError, did_you_mean
from zerofit.config.grpo import Sampling

Engine = Literal["graph", "hf"]
Dtype = Literal["bf16", "fp16", "fp32"]
Quantize = Literal["nf4"]
WARM = 0.7
"""Temperature of several samples, unless another is asked for."""
TOKENS = 1024
"""Of a completion at most, unless more are asked for."""


@dataclass(frozen=True)
class Asked:
    """The options, each with its default."""

    target: str
    """A run (RUN, RUN@STEP), a directory that transformers loads, or a hub id."""
    data: tuple[str, ...] = ()
    """Files, directories, `hf:ID`; none: the run's own test rows."""
    fields: Mapping[str, str] = field(default_factory=dict)
    """Known field -> theirs."""
    limit: int | None = None
    """The first so many problems."""
    k: tuple[int, ...] = (1,)
    """pass@k and maj@k for these."""
    samples: int | None = None
    """Completions of each problem; null: the largest k."""
    temperature: float | None = None
    """null: 0 for one completion of each problem, else WARM."""
    top_p: float = 1.0
    top_k: int = 0
    max_tokens: int | None = None
    """null: TOKENS, or what the model's context leaves."""
    seed: int = 0
    """Decides what is drawn."""
    system: str | None = None
    """System message of problems that have none; null: the run's."""
    template: str | None = None
    """Chat template; null: the run's, or the tokenizer's own."""
    engine: Engine = "graph"
    dtype: Dtype | None = None
    """Of the weights; null: by the device."""
    quantize: Quantize | None = None
    """Hold a model's linear layers in 4 bits; a run is what it was in training."""
    batch: int | None = None
    """Completions at once on a rank; null: as many as fit."""
    output: Path | None = None
    """Directory; null: beside the run, or in ./evaluations."""
    against: Path | None = None
    """Another evaluation of the same problems, to compare with."""

    def check(self) -> None:
        """Raise UserError where they contradict one another."""
        choices: tuple[tuple[str, str | None, tuple[str, ...]], ...] = (
            ("--engine", self.engine, get_args(Engine)),
            ("--dtype", self.dtype, get_args(Dtype)),
            ("--quantize", self.quantize, get_args(Quantize)),
        )
        for name, value, known in choices:
            if value is not None and value not in known:
                raise UserError(f"{name} {value} is none of {', '.join(known)}{did_you_mean(value, known)}")
        if not 0 < self.top_p <= 1:
            raise UserError(f"--top-p {self.top_p:g}: is a probability, above 0 and at most 1")
        if max(self.k) > self.per_problem:
            raise UserError(
                f"--k {max(self.k)} needs as many samples of each problem, and --samples is {self.per_problem}"
            )
        if self.per_problem > 1 and self.sampling(TOKENS).temperature == 0:
            raise UserError(
                f"--temperature 0 writes the same each time: {self.per_problem} samples of a problem need one above 0"
            )

    @property
    def per_problem(self) -> int:
        """Completions of each problem."""
        return max(self.k) if self.samples is None else self.samples

    def sampling(self, max_tokens: int) -> Sampling:
        """How tokens are drawn."""
        warm = 0.0 if self.per_problem == 1 else WARM
        temperature = warm if self.temperature is None else self.temperature
        return Sampling(temperature=temperature, top_p=self.top_p, top_k=self.top_k, max_tokens=max_tokens)

    def command(self) -> str:
        """The command that asks for it, for a shell."""
        usual = Asked(self.target)
        words = ["zerofit", "eval", self.target]
        options: dict[str, Any] = {
            name: value for name, value in vars(self).items() if value != vars(usual)[name] and name != "target"
        }
        for name, value in options.items():
            option = f"--{name.replace('_', '-')}"
            if name == "data":
                words += [word for one in self.data for word in (option, one)]
            elif name == "fields":
                words += [option, ",".join(f"{known}={theirs}" for known, theirs in self.fields.items())]
            elif name == "k":
                words += [option, ",".join(map(str, self.k))]
            else:
                words += [option, str(value)]
        return shlex.join(words)


def parse_ks(text: str) -> tuple[int, ...]:
    """`1,8` -> (1, 8), in order and each once; 1 is always among them. Raises UserError."""
    try:
        ks = sorted({int(word) for word in text.split(",")})
    except ValueError:
        raise UserError(f"--k {text}: takes whole numbers with commas between, for example 1,8") from None
    if ks[0] < 1:
        raise UserError(f"--k {text}: each is at least 1")
    return tuple(sorted({1, *ks}))
