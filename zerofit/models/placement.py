"""Where a model's weights come to lie: the engine says, this room follows.

A model is made in three steps that are the same for every strategy: its modules are constructed under
`placement.building()`, without values; `placement.shard(model)` cuts it up; then every parameter is written whole,
one by one, with `placement.write`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Protocol

import torch
from accelerate import init_empty_weights
from torch import Tensor, nn

if TYPE_CHECKING:
    from zerofit.models.trained import TrainedModel


class Placement(Protocol):
    """How one strategy holds weights."""

    device: torch.device
    """Where weights live after the build."""
    dtype: torch.dtype
    """Dtype of weights (float32 where the engine keeps masters in the weights; otherwise the compute dtype)."""

    def building(self) -> AbstractContextManager[None]:
        """The context in which modules are constructed."""

    def shard(self, model: TrainedModel) -> None:
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

    def shard(self, model: TrainedModel) -> None:
        """Give every parameter its whole storage."""
        give_dtypes(model, self.dtype)
        with kept_tied(model):
            model.to_empty(device=self.device)

    def write(self, parameter: Tensor, value: Tensor) -> None:
        """Copy."""
        with torch.no_grad():
            parameter.copy_(value)


def give_dtypes(model: TrainedModel, dtype: torch.dtype) -> None:
    """Parameters on the meta device get the dtype in which they will be held: `dtype`, or frozen ones the model's."""
    for parameter in model.parameters():
        held = dtype if parameter.requires_grad else model.frozen_dtype or dtype
        parameter.data = parameter.data.to(held)


@contextmanager
def parameters_on_meta() -> Iterator[None]:
    """Modules constructed here have their parameters on the meta device, and their buffers real and computed."""
    plain = nn.Module.register_parameter
    with init_empty_weights(include_buffers=False):
        emptying = nn.Module.register_parameter

        def register(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
            # One that is there already gets a second name: accelerate would make a second parameter of it.
            tied = parameter is not None and parameter.is_meta
            (plain if tied else emptying)(module, name, parameter)

        nn.Module.register_parameter = register  # type: ignore[method-assign, assignment]
        yield  # accelerate puts back what was there


@contextmanager
def kept_tied(model: nn.Module) -> Iterator[None]:
    """What has several names here has them afterwards: `to_empty` makes a parameter of each name."""
    aliases = other_names(model)
    yield
    for alias, name in aliases.items():
        owner, _, leaf = alias.rpartition(".")
        model.get_submodule(owner)._parameters[leaf] = model.get_parameter(name)


def other_names(model: nn.Module) -> dict[str, str]:
    """Of tied parameters each further name -> the first, which is the one of `named_parameters()`."""
    first: dict[int, str] = {}
    aliases = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if first.setdefault(id(parameter), name) != name:
            aliases[name] = first[id(parameter)]
    return aliases
