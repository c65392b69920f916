"""What an engine allocates around a model's operations, replayed without that engine, on a model of fake tensors.

One class per engine. Parameters are fake CPU tensors with the whole shape, of the dtype that the engine computes with
or holds (`held`); their bytes are never counted from the tensors, but booked by the engine's replay: `gathered`,
sharded or whole.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch

from zerofit.models.trained import TrainedModel
from zerofit.plan.spec import RunSpec
from zerofit.predict.ledger import Ledger


@dataclass(frozen=True)
class Books:
    """Where a rank's bytes are booked."""

    device: Ledger
    """Of the GPU, as its allocator counts (allocated, not reserved)."""
    host: Ledger
    """What the engine holds in the rank's host memory, pinned included; not what Python and its libraries take."""


class Replay(ABC):
    """An engine around a step: open what is resident, hook the model, then be told what happens.

    Of several ranks the last one is replayed, unless `rank` is set before `attach`: its layers come first in backward,
    and it needs most, or nearly so.
    """

    not_modelled: tuple[str, ...] = ()
    """What the engine does that the replay does not: one phrase each."""
    micro_steps = 2
    """Micro-steps of an optimizer step, at most: in the second, gradients are there already."""
    steps = 1
    """Optimizer steps until one is as the next: ZeRO-3 learns the order of modules in the first."""

    def __init__(self, spec: RunSpec, books: Books) -> None:
        self.spec, self.books = spec, books
        self.rank = spec.batches.ranks - 1
        self.rival: int | None = None
        """Another rank that may need more than the last; known once attached."""
        self.last = True

    def begin_micro_step(self, last: bool) -> None:
        """Before each forward pass; `last`: of those that an optimizer step takes."""
        self.last = last

    @abstractmethod
    def held(self) -> torch.dtype:
        """Dtype of trained parameters in the module whose forward runs (float32 under autocast)."""

    @abstractmethod
    def attach(self, model: TrainedModel) -> None:
        """Phase init: book what the engine makes when it takes the model, transients included; register hooks.

        Gradients: a hook (`register_post_accumulate_grad_hook`) books each as the engine holds it and sets
        `parameter.grad` to null, so that autograd's own tensor is counted for as long as it is there and no longer.
        """

    def playing(self) -> AbstractContextManager[object]:
        """Around all of it, once the model is attached: what the engine has changed in libraries."""
        return nullcontext()

    def computing(self) -> AbstractContextManager[object]:
        """Around forward passes: autocast where the engine uses that."""
        return nullcontext()

    @abstractmethod
    def micro_step_done(self) -> None:
        """After each backward pass."""

    @abstractmethod
    def step(self) -> None:
        """Phase step: the norm of the gradients, the optimizer, and what is freed then."""
