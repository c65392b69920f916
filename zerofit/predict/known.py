"""Values of tensors without memory, where a model decides on them: masks, labels and positions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch._subclasses import fake_tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._mode_utils import no_dispatch
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten
MOST = 2**22
"""Elements of the largest tensor whose values are kept."""
MAKERS = {
    aten.arange.default, aten.arange.start, aten.arange.start_step, aten.full.default, aten.ones.default,
    aten.zeros.default,
}  # fmt: skip
"""Operations that make a tensor of numbers alone."""


class Knowing(TorchDispatchMode):
    """Whole numbers that are made out of nothing are known, as is all that follows from what is known.

    The fake mode does the second, once it may remember more than one element (see `remembering`); but it would compute
    results before it sees that they are too large to be kept.
    """

    def __init__(self, mode: FakeTensorMode) -> None:
        super().__init__()
        self.mode = mode

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        given = kwargs or {}
        if func in MAKERS and not _floating(args, given):
            made = func(*args, **given)
            if made.numel() > MOST or made.is_floating_point():
                return made
            with no_dispatch():
                real = func(*args, **given)
            return known(real, self.mode)
        told = [one for one in args if isinstance(one, FakeTensor) and one.constant is not None]
        if len(told) < 2 or _together(told) <= MOST:
            return func(*args, **given)
        values = [one.constant for one in told]
        for one in told:
            one.constant = None
        try:
            return func(*args, **given)
        finally:
            for one, value in zip(told, values, strict=True):
                one.constant = value


@contextmanager
def remembering() -> Iterator[None]:
    """Fake tensors keep the values of more than one element."""
    with patch.object(fake_tensor, "CONSTANT_NUMEL_LIMIT", MOST):
        yield


def known(value: Tensor, mode: FakeTensorMode) -> FakeTensor:
    """`value` without memory, whose values `mode` knows."""
    assert value.numel() <= MOST, "a batch has fewer tokens"
    return mode.fake_tensor_converter.from_real_tensor(mode, value, make_constant=True)


def without_memory(batch: Mapping[str, Tensor], mode: FakeTensorMode) -> dict[str, Tensor]:
    """A batch as it is on the device: of ids, labels, masks and positions the values are known."""
    return {
        name: known(value, mode) if value.dtype == torch.int64 and value.numel() <= MOST else mode.from_tensor(value)
        for name, value in batch.items()
    }


def _floating(args: Sequence[Any], given: Mapping[str, Any]) -> bool:
    dtype = given.get("dtype")
    return (dtype is not None and dtype.is_floating_point) or any(isinstance(one, float) for one in args)


def _together(tensors: Sequence[Tensor]) -> int:
    """Elements of tensors that are spread over one another; of the largest where they are not."""
    try:
        return torch.broadcast_shapes(*(one.shape for one in tensors)).numel()
    except RuntimeError:
        return max(one.numel() for one in tensors)
