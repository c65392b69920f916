"""A frozen backbone that computes features once: whole weights, and neither gradients nor an optimizer."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch

from zerofit.models.trained import TrainedModel
from zerofit.predict.plain import Whole
from zerofit.predict.sizes import weights_of
from zerofit.train.engine import DTYPES


class Float32(Whole):
    """Where training has float32 weights and autocast."""

    not_modelled = ("the heads of a probe on cached features, trained once the backbone is gone",)

    def attach(self, model: TrainedModel) -> None:
        self.books.device.open("weights", weights_of(model))

    def step(self) -> None:
        raise AssertionError("features are not trained")


class Low(Float32):
    """Where training has weights in the compute type, as ZeRO-1 and ZeRO-2."""

    def held(self) -> torch.dtype:
        return DTYPES[self.spec.precision]

    def computing(self) -> AbstractContextManager[object]:
        return nullcontext()
