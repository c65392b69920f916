"""Which of PyTorch's operations take time: views do not, nor what changes nothing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode


class Count(TorchDispatchMode):
    """Counts those that are done meanwhile, by this thread and by backward passes that it starts."""

    def __init__(self) -> None:
        super().__init__()
        self.operations = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        outputs = func(*args, **(kwargs or {}))
        self.operations += not is_view(func, list(tensors(args)), list(tensors(outputs)))
        return outputs


def is_view(func: Any, given: Sequence[Tensor], made: Sequence[Tensor]) -> bool:
    """Whether the overload `func`, which has `made` these of what it was given, has but looked at that anew."""
    read = {tensor.untyped_storage()._cdata for tensor in given}
    return not func._schema.is_mutable and all(one.untyped_storage()._cdata in read for one in made)


def tensors(values: Any) -> Iterator[Tensor]:
    """All in nested sequences."""
    if isinstance(values, Tensor):
        yield values
    elif isinstance(values, Iterable) and not isinstance(values, str):
        for value in values:
            yield from tensors(value)
