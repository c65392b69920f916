"""Which of a rank's memory holds weights, gradients and the optimizer's state, and how long its steps take."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from zerofit.measure.clock import clock_for
from zerofit.measure.memory import GIB

if TYPE_CHECKING:
    from zerofit.train.engine import Engine

WEIGHTS, GRADIENTS, OPTIMIZER = KINDS = ("weights", "gradients", "optimizer")
COUNTED = 2
"""The step by which everything is there that stays: optimizers make their state in the first."""


def tensors_in(value: Any) -> Iterator[Tensor]:
    """The tensors of a value, of lists and mappings in it too; of a DTensor what is held here."""
    if isinstance(value, DTensor):
        yield value.to_local()
    elif isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        yield from tensors_in(list(value.values()))
    elif isinstance(value, list | tuple):
        for one in value:
            yield from tensors_in(one)


def state_tensors(optimizer: torch.optim.Optimizer) -> Iterator[Tensor]:
    """What an optimizer keeps from step to step."""
    yield from tensors_in(list(optimizer.state.values()))


def sizes(held: Mapping[str, Iterable[Tensor]], device: torch.device) -> dict[str, float]:
    """GiB of each kind on that kind of device. Memory that tensors share counts once, for the kind that is named first.

    Of a view all that keeps alive what it is a view of.
    """
    seen: set[int] = set()
    found = {}
    for kind, tensors in held.items():
        total = 0
        for tensor in tensors:
            storage = tensor.untyped_storage()
            if storage.device.type == device.type and storage.nbytes() and storage.data_ptr() not in seen:
                seen.add(storage.data_ptr())
                total += storage.nbytes()
        found[kind] = total / GIB
    return found


class StepWatch:
    """Stands around the steps of a run's optimizer: their time, on rank 0, and what the rank holds by the second."""

    def __init__(self, engine: Engine) -> None:
        self.engine, self.clock = engine, clock_for(engine.device, read=dist.get_rank() == 0)
        self.holds: dict[str, float] = {}
        """GiB by kind; empty before the first step."""
        self._steps = 0

    def attach(self, model: nn.Module, wrapped: nn.Module, optimizer: Any) -> None:
        """Begin; all as prepared for training."""

        def count(*kinds: str) -> None:
            if self._steps <= COUNTED:
                held = self.engine.holdings(model, wrapped, optimizer)
                found = sizes({kind: held[kind] for kind in kinds}, self.engine.device)
                self.holds = {kind: found.get(kind, self.holds.get(kind, 0.0)) for kind in KINDS}

        def before() -> None:
            self._steps += 1
            count(WEIGHTS, GRADIENTS)
            self.clock.start()

        def after() -> None:
            self.clock.stop()
            count(WEIGHTS, OPTIMIZER)

        self.engine.around_step(wrapped, optimizer, before, after)
