"""Where a model's weights come to lie: the engine says, this room follows.

A model is made in three steps that are the same for every strategy: its modules are constructed under
`placement.building()`, without values; `placement.shard(model)` cuts it up; then every parameter is written whole,
one by one, with `placement.write`.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Protocol

import torch
from accelerate import init_empty_weights
from torch import Tensor

if TYPE_CHECKING:
    from zerofit.models.classifier import ImageClassifier


class Placement(Protocol):
    """How one strategy holds weights."""

    device: torch.device
    """Where weights live after the build."""
    dtype: torch.dtype
    """Dtype of weights (float32 where the engine keeps masters in the weights; otherwise the compute dtype)."""

    def building(self) -> AbstractContextManager[None]:
        """The context in which modules are constructed."""

    def shard(self, model: ImageClassifier) -> None:
        """Give the constructed model its final, still unwritten, storage."""

    def write(self, parameter: Tensor, value: Tensor) -> None:
        """Put the whole tensor `value`, of any dtype and on any device, into a possibly sharded `parameter`."""


class WholePlacement:
    """Every weight whole on `device`, in `dtype`: single, DDP and ZeRO-1/2 before DeepSpeed takes over."""

    def __init__(self, device: torch.device, dtype: torch.dtype) -> None:
        self.device, self.dtype = device, dtype

    def building(self) -> AbstractContextManager[None]:
        """Parameters wait on the meta device."""
        return parameters_on_meta()

    def shard(self, model: ImageClassifier) -> None:
        """Give every parameter its whole storage."""
        model.to(self.dtype).to_empty(device=self.device)

    def write(self, parameter: Tensor, value: Tensor) -> None:
        """Copy."""
        with torch.no_grad():
            parameter.copy_(value)


def parameters_on_meta() -> AbstractContextManager[None]:
    """Modules constructed here have their parameters on the meta device, and their buffers real and computed."""
    context: AbstractContextManager[None] = init_empty_weights(include_buffers=False)
    return context
