"""How a checkpoint's large files are written: at once, or, from copies of their tensors, behind training."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

Write = Callable[[Any, Path], object]
"""Writes a value, with tensors in it, to a path."""


class Writes(Protocol):
    """Takes the writes of this rank."""

    def add(self, write: Write, value: Any, path: Path) -> None:
        """Have `write(value, path)` done: now, or later with a copy of `value`, which may then change."""


class AtOnce:
    """Nothing goes on behind training."""

    def add(self, write: Write, value: Any, path: Path) -> None:
        """As `Writes.add`."""
        write(value, path)


class Later:
    """Keeps copies in this process's memory until `run`; paths below `there` are meant below `instead`."""

    def __init__(self, there: Path, instead: Path) -> None:
        self.there, self.instead = there, instead
        self._waiting: list[tuple[Write, Any, Path]] = []

    def add(self, write: Write, value: Any, path: Path) -> None:
        """As `Writes.add`."""
        self._waiting.append((write, on_host(value), self.instead / path.relative_to(self.there)))

    def run(self) -> None:
        """Do all, in order; each copy is let go of once it is written."""
        while self._waiting:
            write, value, path = self._waiting.pop(0)
            path.parent.mkdir(parents=True, exist_ok=True)
            write(value, path)


def on_host(value: Any) -> Any:
    """A copy of nested containers whose tensors are copies in the host's memory; what is no container is shared.

    Objects are copied one level deep (DeepSpeed's loss scaler changes with every step).
    """
    if isinstance(value, Tensor):
        return _copied(value)
    if type(value) in (dict, OrderedDict):
        return type(value)((key, on_host(one)) for key, one in value.items())
    if type(value) in (list, tuple):
        return type(value)(on_host(one) for one in value)
    assert not isinstance(value, Mapping), f"a {type(value).__name__} may hold tensors"
    return copy.copy(value)


def _copied(tensor: Tensor) -> Tensor:
    place = torch.empty(tensor.shape, dtype=tensor.dtype)
    place.zero_()  # by several threads: a copy from a GPU would meet the new pages one by one, ten times as slowly
    return place.copy_(tensor.detach())
