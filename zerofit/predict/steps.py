"""What a task does with a batch: a training step's forward pass and loss, and evaluation's."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from torch import Tensor

from zerofit.models.trained import TrainedModel
from zerofit.plan.spec import RunSpec
from zerofit.predict.batches import Batch

Forward = Callable[..., Any]
"""The model as its engine calls it."""


class Steps(ABC):
    """One task's, on tensors without memory."""

    logits: tuple[int, ...] = ()
    """Last dimensions of tensors that hold logits."""

    def __init__(self, spec: RunSpec) -> None:
        self.spec = spec

    def on_gpu(self) -> AbstractContextManager[None]:
        """Has what the task calls besides the model take what it takes on a GPU."""
        return nullcontext()

    def prepare(self, model: TrainedModel) -> None:
        """What the trainer does with the model before an engine takes it."""

    @abstractmethod
    def batch(self, rows: int, *, training: bool) -> Batch:
        """A micro-batch, with values; to be made where tensors have memory."""

    @abstractmethod
    def loss(self, forward: Forward, batch: Batch) -> Tensor:
        """Of a micro-batch, as the trainer computes it."""

    @abstractmethod
    def evaluate(self, forward: Forward, batch: Batch) -> None:
        """A batch of evaluation; without gradients."""
