"""What a checkpoint holds, whoever wrote it, as exports take it: names first, then one tensor at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from zerofit.checkpoint.stream import Value
from zerofit.models.pretrained import Reader
from zerofit.models.zero_files import Spread


@dataclass(frozen=True)
class Optimizer:
    """What an optimizer keeps."""

    moments: Mapping[str, Mapping[str, Reader]]
    """By parameter and kind: `exp_avg`, `exp_avg_sq`, `momentum_buffer`."""
    counts: Mapping[str, float]
    """Steps that were counted of each parameter, for optimizers that do."""
    groups: Sequence[dict[str, Any]]
    """Hyper-parameters, plain values, of each group; `params` are the names of its parameters."""
    schedule: Mapping[str, Any] = field(default_factory=dict)
    """State dict of the learning rate's schedule, plain values."""


@dataclass(frozen=True)
class Content:
    """A checkpoint, read tensor by tensor."""

    source: str
    """Its path."""
    names: Sequence[str]
    """Of all tensors of the model."""
    weights: Callable[[], Iterator[tuple[str, Value]]]
    """Each of `names` once, in any order. May raise UserError at its end, where it finds that something is amiss."""
    buffers: frozenset[str] = frozenset()
    """Those of `names` that are no parameters: they keep their dtype."""
    optimizer: Optimizer | None = None
    step: int | None = None
    """Optimizer steps that were done."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """strategy, world_size, precision, as far as known."""
    position: Mapping[str, Any] = field(default_factory=dict)
    """Where in the data it stands."""
    files: Sequence[Path] = ()
    """Small files to be kept beside: random number generators' states, Trainer's own record."""
    config: Callable[[Path], None] | None = None
    """Writes the backbone's config.json to a path."""
    beside: Callable[[Path], None] | None = None
    """Writes what else transformers looks for into a directory: a tokenizer, generation_config.json."""
    stem: str = "model"
    """How the names of files of weights begin."""
    merged: Mapping[str, Any] | None = None
    """The adapters that were merged in."""
    made: Mapping[str, Any] = field(default_factory=dict)
    """What export.json says it was made from."""
    notes: Sequence[str] = ()
    """What the user is to know, a line each."""

    def dtype_of(self, name: str, value: Value, wanted: torch.dtype) -> torch.dtype:
        """The dtype that a tensor is written in: parameters as `wanted`, buffers and whole numbers as they are."""
        return value.dtype if name in self.buffers or not value.dtype.is_floating_point else wanted


def value_of(read: Reader) -> Value:
    """What is written of a reader: in pieces, where it has them."""
    return read if isinstance(read, Spread) else read()


def plain(value: Any) -> bool:
    """Whether JSON can hold a value as it is."""
    if isinstance(value, dict):
        return all(isinstance(key, str) and plain(one) for key, one in value.items())
    if isinstance(value, (list, tuple)):
        return all(map(plain, value))
    return value is None or isinstance(value, (bool, int, float, str))
