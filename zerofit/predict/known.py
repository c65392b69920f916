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

aten = torch.ops.aten
MOST = 2**22
"""Elements of the largest tensor whose values are kept."""
MAKERS = {
    aten.arange.default, aten.arange.start, aten.arange.start_step, aten.full.default, aten.ones.default,
    aten.zeros.default,
}  # fmt: skip
"""Operations that make a tensor of numbers alone."""
NONE: Mapping[str, Any] = {}


class KnowingMode(FakeTensorMode):
    """A fake mode in which whole numbers that are made out of nothing are known, as is all that follows from them.

    The second the fake mode does by itself, once it may remember more than one element (see `remembering`); but it
    would compute results before it sees that they are too large to be kept.
    """

    def dispatch(self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] = NONE) -> Any:
        """As the fake mode's."""
        if func in MAKERS:
            made: Any = super().dispatch(func, types, args, kwargs)
            if made.numel() > MOST or made.is_floating_point():
                return made
            with no_dispatch():
                real = func(*args, **kwargs)
            return known(real, self)
        told = [one for one in args if isinstance(one, FakeTensor) and one.constant is not None]
        if len(told) < 2 or _together(told) <= MOST:
            return super().dispatch(func, types, args, kwargs)
        values = [one.constant for one in told]
        for one in told:
            one.constant = None
        try:
            return super().dispatch(func, types, args, kwargs)
        finally:
            for one, value in zip(told, values, strict=True):
                one.constant = value


@contextmanager
def remembering() -> Iterator[None]:
    """Fake tensors keep the values of more than one element."""
    with patch.object(fake_tensor, "CONSTANT_NUMEL_LIMIT", MOST):
        yield


def known(value: Tensor, mode: FakeTensorMode) -> FakeTensor:
    """`value`, which has memory, as it is without, with values that `mode` knows."""
    assert not isinstance(value, FakeTensor), "its values are to be computed with"
    assert value.numel() <= MOST, "a batch has fewer tokens"
    return mode.fake_tensor_converter.from_real_tensor(mode, value, make_constant=True)


def without_memory(batch: Mapping[str, Tensor], mode: FakeTensorMode) -> dict[str, Tensor]:
    """A batch as it is on the device: of ids, labels, masks and positions the values are known."""
    return {
        name: known(value, mode) if value.dtype == torch.int64 and value.numel() <= MOST else mode.from_tensor(value)
        for name, value in batch.items()
    }


def _together(tensors: Sequence[Tensor]) -> int:
    """Elements of tensors that are spread over one another; of the largest where they are not."""
    try:
        return torch.broadcast_shapes(*(one.shape for one in tensors)).numel()
    except RuntimeError:
        return max(one.numel() for one in tensors)
