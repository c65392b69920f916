"""request.json of an evaluation: everything that its ranks need besides the prompts. Written before they start."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import ValidationError

from zerofit.config.errors import UserError
from zerofit.config.grpo import Sampling
from zerofit.config.limited import read_limited
from zerofit.config.section import Section
from zerofit.plan.spec import Hardware

NAME = "request.json"
DONE = "evaluation.json"
"""The figures, written last: without it an evaluation is not finished."""


class Model(Section):
    """What is evaluated."""

    name: str
    """As the user named it."""
    run: Path | None
    """The run directory, absolute; null: a model of transformers."""
    weights: Path
    """The run's checkpoint, or the model's directory, absolute."""
    fingerprint: str
    """Of the files."""
    template: str | None
    """Chat template that was asked for; null: its own."""


class Settled(Section):
    """What decides about rows: parts that were made under other settings are not mixed with them."""

    model: Model
    """What is evaluated."""

    def decisive(self) -> dict[str, Any]:
        """Without what files are called from here: what is in them counts."""
        return {**self.model_dump(mode="json"), "model": self.model.fingerprint}

    def digest(self) -> str:
        """The same for the same settings."""
        return sha256(json.dumps(self.decisive(), sort_keys=True).encode()).hexdigest()


class Pending(Section):
    """One evaluation, and what it runs on now."""

    format: Literal[1] = 1
    """Version of this format."""
    data: str
    """Which problems, in words."""
    count: int
    """How many problems."""
    per_part: int
    """Problems whose completions are made together, and written in one part: the same whatever the ranks."""
    batch: int | None
    """Completions decoded at once on a rank; null: as many as fit."""
    hardware: Hardware
    """What there is now."""
    ranks: int
    """World size now."""


class Settings(Settled):
    """Of problems with answers."""

    problems: str
    """Digest of the problems and right answers."""
    prompts: str
    """Digest of the prompts' tokens."""
    k: tuple[int, ...]
    """pass@k of these."""
    samples: int
    """Completions of each problem."""
    sampling: Sampling
    """How they are drawn."""
    seed: int
    """From which numbers."""
    engine: Literal["graph", "hf"]
    """What decodes."""
    dtype: Literal["bf16", "fp16", "fp32"]
    """Of weights and activations."""
    quantize: Literal["nf4"] | None
    """How the weights of linear layers are held, where otherwise."""
    pad: int
    """Token id that fills prompts up."""
    stops: tuple[int, ...]
    """Token ids that end a completion."""


class Request(Pending):
    """Of a language model, on problems with answers."""

    settings: Settings
    """What decides about completions."""
    against: Path | None
    """Directory of the evaluation to compare with, absolute."""


R = TypeVar("R", bound=Pending)


def read_request(directory: Path) -> Request:
    """Of that evaluation. Raises UserError where it is none of this version's."""
    return read_as(Request, directory)


def read_as(kind: type[R], directory: Path) -> R:
    """A request of that kind. Raises UserError where it is none of this version's."""
    path = directory / NAME
    try:
        return kind.model_validate_json(read_limited(path))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise UserError(f"{path} is not of this version of zerofit: {where}: {first['msg']}") from None


def differences(one: Settled, other: Settled) -> list[str]:
    """Names of the settings that differ."""
    left, right = one.decisive(), other.decisive()
    return [name for name in left if left[name] != right[name]]


def read_done(directory: Path) -> dict[str, Any]:
    """A finished evaluation's figures. Raises UserError."""
    path = directory / DONE
    try:
        found: dict[str, Any] = json.loads(read_limited(path))
        found["problems"], found["figures"]
    except FileNotFoundError:
        unfinished = (directory / NAME).is_file()
        why = "has not finished" if unfinished else f"is no evaluation of a language model: it has no {DONE}"
        raise UserError(f"{directory} {why}") from None
    except (ValueError, KeyError, TypeError, RecursionError):
        raise UserError(f"{path} is damaged, or no evaluation's") from None
    return found
