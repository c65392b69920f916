"""What real tensors take, as it comes and goes: for engines that are replayed in predictions."""

from __future__ import annotations

import math
import time
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch.distributed import distributed_c10d
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

LOOKS = 5
"""A millisecond apart, at a peak that may not stay."""


class LiveStorages(TorchDispatchMode):
    """`peak`: bytes at the fullest moment since `reset`, of all storages that were made, or used, under it.

    Sizes are read anew at each operation: FSDP2 resizes storages without one. A peak above `careful` bytes has to stay:
    gloo's threads hold on to what has arrived until they have had the processor.
    """

    def __init__(self) -> None:
        super().__init__()
        self.peak = 0
        self.careful = math.inf
        self._looking = True
        self._known: dict[int, weakref.ref[Any]] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        outputs = func(*args, **(kwargs or {}))
        for one in tree_leaves((args, kwargs, outputs)):
            if isinstance(one, torch.Tensor):
                self._see(one)
        if self._looking and (size := self.now()) > self.peak:
            self.peak = max(self.peak, self._settled(size) if size > self.careful else size)
        return outputs

    def _settled(self, size: int) -> int:
        """Bytes alive a few milliseconds later, at their least."""
        for _ in range(LOOKS):
            if size <= self.peak:
                break
            time.sleep(0.001)
            size = min(size, self.now())
        return size

    @contextmanager
    def blind_to_gloo(self) -> Iterator[None]:
        """Gloo copies what it scatters, as NCCL does not: it is not looked at meanwhile."""
        scatter = distributed_c10d.reduce_scatter_single

        def blindly(*args: Any, **options: Any) -> Any:
            self._looking = False
            try:
                return scatter(*args, **options)
            finally:
                self._looking = True

        with (
            patch.object(distributed_c10d, "reduce_scatter_single", blindly),
            patch.object(torch.distributed, "reduce_scatter_single", blindly),
        ):
            yield

    def now(self) -> int:
        """Bytes alive."""
        storages = [reference() for reference in list(self._known.values())]  # gloo's threads forget meanwhile
        return sum(storage.nbytes() for storage in storages if storage is not None)

    def reset(self) -> None:
        """Look at what comes from now on."""
        self.peak = self.now()

    def _see(self, tensor: torch.Tensor) -> None:
        if isinstance(tensor, DTensor):
            tensor = tensor._local_tensor
        if tensor.device.type != "cpu" or type(tensor) not in (torch.Tensor, torch.nn.Parameter):
            return
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key not in self._known:

            def forget(_: Any) -> None:
                self._known.pop(key, None)

            self._known[key] = weakref.ref(storage, forget)
