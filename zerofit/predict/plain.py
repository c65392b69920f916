"""single and ddp: whole float32 weights on every rank, autocast for lower precisions."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager

import torch

from zerofit.models.trained import TrainedModel
from zerofit.predict.optimizers import norm
from zerofit.predict.replay import Replay
from zerofit.predict.sizes import rounded, weights_of, written
from zerofit.predict.updating import kept, made, optimizer_groups
from zerofit.train.engine import DTYPES

TOGETHER = 250 * 2**20
"""Bytes that DDP sends at once of rank 0's weights (nn/parallel/distributed.py, `broadcast_bucket_size`)."""
BUCKET, FIRST = 25 * 2**20, 2**20
"""Bytes of a bucket of gradients, and of the first one (`bucket_cap_mb`, `_DEFAULT_FIRST_BUCKET_BYTES`)."""


class Whole(Replay):
    """On one rank: gradients are those that autograd makes, and the optimizer is torch's."""

    def held(self) -> torch.dtype:
        return torch.float32

    def attach(self, model: TrainedModel) -> None:
        device = self.books.device
        self.trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.elements = [parameter.numel() for parameter in self.trained]
        self.groups = [[parameter.numel() for parameter in group] for group in optimizer_groups(model, self.spec)]
        device.open("weights", weights_of(model))
        device.open("other", written(model, fresh=self.spec.origin is None)).close()
        self.connect(model)
        device.open("optimizer", kept(self.spec, sum(self.elements)))

    def connect(self, model: TrainedModel) -> None:
        """What ranks need to train together: of one, nothing."""

    def computing(self) -> AbstractContextManager[object]:
        dtype = DTYPES[self.spec.precision]
        return torch.autocast("cpu", dtype, enabled=dtype != torch.float32)

    def micro_step_done(self) -> None:
        """Gradients stay where they are."""

    def step(self) -> None:
        device = self.books.device
        if self.spec.recipe.optimizer.clip_grad is not None:
            device.open("other", norm(self.elements)).close()
        on_cuda = self.spec.hardware.device == "cuda"
        device.open("other", max(made(self.spec, group, on_cuda=on_cuda) for group in self.groups)).close()
        for parameter in self.trained:
            parameter.grad = None


class Replicated(Whole):
    """ddp: gradients are moved into buckets that stay, of which they are views from then on."""

    def attach(self, model: TrainedModel) -> None:
        """As the second step begins all buckets are made anew, once: zeroed gradients keep the first ones so long."""
        super().attach(model)
        if self.spec.batches.accumulation > 1:
            self.books.device.open("buckets", self.buckets).close()

    def connect(self, model: TrainedModel) -> None:
        device = self.books.device
        sent = [*model.parameters(), *model.buffers()]
        device.open("other", _sending(one.numel() * one.itemsize for one in sent)).close()
        self.buckets = self._buckets()
        device.open("buckets", self.buckets)
        for parameter in self.trained:
            parameter.register_post_accumulate_grad_hook(_moved)

    def _buckets(self) -> int:
        """Of all gradients, in the order in which they come."""
        size, total, cap = 0, 0, FIRST
        for parameter in reversed(self.trained):
            size += parameter.numel() * parameter.itemsize
            if size >= cap:
                total, size, cap = total + rounded(size), 0, BUCKET
        return total + rounded(size)


def _moved(parameter: torch.Tensor) -> None:
    parameter.grad = None


def _sending(sizes: Iterable[int]) -> int:
    """Bytes of the copies while rank 0's weights are sent: two portions are on their way at a time."""
    portions = [0]
    for size in sizes:
        if portions[-1] and portions[-1] + size > TOGETHER:
            portions.append(0)
        portions[-1] += size
    return max(one + next for one, next in zip(portions, [*portions[1:], 0], strict=True))
