"""Knowing when the backward pass enters a module, and leaves it: as DeepSpeed does, by functions that do nothing.

A tensor's own hook would be told of its whole gradient, that of a residual connection around the module included.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only


class Passed(torch.autograd.Function):
    """The same tensor; backward calls `then` before the gradient goes on."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, then: Callable[[], None]) -> Tensor:
        ctx.then = then
        return tensor.detach()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        ctx.then()
        return gradient, None


def over_all(change: Callable[[Tensor], Tensor], value: Any) -> Any:
    """`change` over the tensors of nested containers, data classes and transformers' outputs too, into new ones."""
    return tree_map_only(Tensor, change, value)


def over_tensors(change: Callable[[Tensor], Tensor], value: Any) -> Any:
    """`change` over the tensors of nested lists, tuples and mappings, those in place."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, tuple | list):
        changed = [over_tensors(change, one) for one in value]
        return type(value)(*changed) if isinstance(value, tuple) and type(value) is not tuple else type(value)(changed)
    if isinstance(value, Mapping):
        for key in list(value):
            value[key] = over_tensors(change, value[key])  # type: ignore[index]
    return value
