"""Runs that train a small part of the model: their checkpoints hold that part, and a hash of the frozen rest.

A probe of an 8 B backbone would else write its 16 GB again at every checkpoint.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
import xxhash
from pydantic import ValidationError
from torch import Tensor, nn

from zerofit.config.errors import UserError
from zerofit.config.limited import read_limited
from zerofit.config.schema import Recipe
from zerofit.config.section import Section

FROZEN = "frozen.json"


class Frozen(Section):
    """Which frozen weights a checkpoint belongs to."""

    frozen: str
    """Their hash."""
    origin: str
    """Where they came from, in words."""


def trains_a_part(recipe: Recipe) -> bool:
    """Whether checkpoints hold what was trained alone: those of probes and of LoRA."""
    return recipe.task == "probe" or recipe.model.lora is not None


class WeightHash:
    """A hash of named tensors (names, dtypes, shapes, bytes), whatever the order in which they are added."""

    def __init__(self) -> None:
        self._digests: dict[str, str] = {}

    def add(self, name: str, value: Tensor) -> None:
        """Count a tensor, on any device, whole."""
        state = xxhash.xxh3_128(f"{value.dtype} {tuple(value.shape)} ".encode())
        state.update(value.detach().contiguous().cpu().flatten().view(torch.uint8).numpy().data)
        self._digests[name] = state.hexdigest()

    def hexdigest(self) -> str:
        """32 hexadecimal digits."""
        lines = (f"{name} {digest}\n" for name, digest in sorted(self._digests.items()))
        return xxhash.xxh3_128("".join(lines).encode()).hexdigest()


def hashed(weights: Iterable[tuple[str, Tensor]], names: set[str], total: WeightHash) -> Iterator[tuple[str, Tensor]]:
    """`weights`, unchanged; those called one of `names` are added to `total` as they pass."""
    for name, value in weights:
        if name in names:
            total.add(name, value)
        yield name, value


def leave_out_frozen(model: nn.Module) -> None:
    """Make `model.state_dict()` leave out frozen parameters, and `load_state_dict` not miss them. Buffers stay."""
    named = model.named_parameters(remove_duplicate=False)
    frozen = {name for name, parameter in named if not parameter.requires_grad}

    def drop(module: nn.Module, state: dict[str, Any], prefix: str, metadata: dict[str, Any]) -> None:
        for name in frozen:
            state.pop(prefix + name, None)

    def forgive(module: nn.Module, incompatible: Any) -> None:
        incompatible.missing_keys[:] = [key for key in incompatible.missing_keys if key not in frozen]

    model.register_state_dict_post_hook(drop)
    model.register_load_state_dict_post_hook(forgive)


def write_frozen(directory: Path, frozen: str, origin: str) -> None:
    """Say in a checkpoint which frozen weights (`frozen`: their hash) it belongs to, and where they came from."""
    text = json.dumps({"frozen": frozen, "origin": origin}, indent=1)
    (directory / FROZEN).write_text(text + "\n", encoding="utf-8")


def check_frozen(directory: Path, frozen: str) -> None:
    """Raise UserError where the checkpoint in `directory` is of other frozen weights than those of hash `frozen`."""
    try:
        said = Frozen.model_validate_json(read_limited(directory / FROZEN))
    except ValidationError:
        raise UserError(f"{directory / FROZEN} is damaged: the checkpoint cannot be used without it") from None
    if said.frozen != frozen:
        raise UserError(
            f"{directory} was trained on other frozen weights ({said.frozen[:12]}, from {said.origin}) than are "
            f"there now ({frozen[:12]}): put those back, or train again"
        )
