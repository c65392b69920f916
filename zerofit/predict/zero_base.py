"""What the replays of DeepSpeed's optimizers share: its settings, and who holds what."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from zerofit.models.quantised import packed_layers
from zerofit.models.trained import TrainedModel
from zerofit.plan.spec import RunSpec
from zerofit.plan.states import BYTES, SCALES
from zerofit.predict.ledger import Account, Kind, Ledger
from zerofit.predict.replay import Books, Replay
from zerofit.predict.updating import FLOAT, made, optimizer_groups
from zerofit.train.engine import DTYPES

DOUBLE = 8
"""Bytes an element that norms are computed in (runtime/zero/utils.py:59)."""


class DeepSpeedReplay(Replay):
    """A DeepSpeed engine: weights in the compute dtype, float32 masters of what is trained."""

    def __init__(self, spec: RunSpec, books: Books) -> None:
        super().__init__(spec, books)
        assert spec.deepspeed is not None, "a ZeRO strategy has settings"
        self.settings = spec.deepspeed
        self.zero: dict[str, Any] = self.settings["zero_optimization"]
        self.ranks = spec.batches.ranks
        self.item = BYTES[spec.precision]
        """Bytes of a weight, and of a gradient as autograd gives it."""
        self.summed = BYTES[self.settings["data_types"]["grad_accum_dtype"]]
        """Bytes of a gradient as it is added up over micro-batches."""
        self.sent = BYTES[self.settings["communication_data_type"]]
        """Bytes of a gradient as it travels."""
        self.bucket = int(self.zero["reduce_bucket_size"])
        self.on_cuda = spec.hardware.device == "cuda"
        self.offloads = self.zero["offload_optimizer"]["device"] != "none"
        self.pinned = self.offloads and bool(self.zero["offload_optimizer"].get("pin_memory"))

    def held(self) -> torch.dtype:
        """The compute dtype."""
        return DTYPES[self.spec.precision]

    def attach(self, model: TrainedModel) -> None:
        self.groups = optimizer_groups(model, self.spec)
        self.trained = [parameter for group in self.groups for parameter in group]
        self.books.device.open("weights", scale_bytes(model))
        self.take(model)
        for parameter in self.trained:
            parameter.register_post_accumulate_grad_hook(self.take_gradient)

    @abstractmethod
    def take(self, model: TrainedModel) -> None:
        """What the engine makes of the model, at first and for good; `self.groups` are known."""

    @abstractmethod
    def take_gradient(self, parameter: torch.Tensor) -> None:
        """Autograd has given one; to be set to null."""

    def update(self, elements: int) -> int:
        """Bytes that updating one flat shard makes for a moment, where it lies."""
        return made(self.spec, [elements], on_cuda=self.on_cuda and not self.offloads)


@contextmanager
def briefly(ledger: Ledger, kind: Kind, size: int) -> Iterator[Account]:
    """Bytes that are there within."""
    account = ledger.open(kind, size)
    try:
        yield account
    finally:
        account.close()


def elements_of(parameters: Iterable[torch.Tensor]) -> int:
    """All their elements."""
    return sum(parameter.numel() for parameter in parameters)


def scale_bytes(model: nn.Module) -> int:
    """Of what unpacks 4-bit layers: whole on every rank, beside the weights (`models.quantised.scale_tensors`)."""
    return round(sum(layer.in_features * layer.out_features * SCALES for _, layer in packed_layers(model)))


__all__ = ["DOUBLE", "FLOAT", "DeepSpeedReplay", "briefly", "elements_of", "scale_bytes"]
