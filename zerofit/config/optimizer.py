"""`optimizer:` in a recipe: the algorithm, its rates, and their schedule."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from zerofit.config.ranges import AboveZero, BelowOne, Fraction, NonNegative, Positive, Whole
from zerofit.config.section import Section


class Warmup(Section):
    """Length of the linear warm-up: exactly one field."""

    steps: Whole | None = None
    """In optimizer steps."""
    epochs: NonNegative | None = None
    """In epochs."""
    fraction: Fraction | None = None
    """As a fraction of all steps."""

    @model_validator(mode="after")
    def _one(self) -> Warmup:
        if sum(value is not None for value in (self.steps, self.epochs, self.fraction)) != 1:
            raise ValueError("needs exactly one of steps, epochs and fraction")
        return self


class Optimizer(Section):
    """The optimizer and its schedule."""

    name: Literal["adamw", "sgd", "lars"] = "adamw"
    """Algorithm: AdamW, SGD with momentum, or LARS (layer-wise trust ratios; You et al. 2017)."""
    lr: Positive | None = None
    """Peak learning rate; exactly one of lr and blr."""
    blr: Positive | None = None
    """Base learning rate: lr = blr x global_batch / 256."""
    betas: tuple[BelowOne, BelowOne] = (0.9, 0.999)
    """AdamW's decay rates."""
    eps: Positive = 1e-8
    """AdamW's epsilon."""
    momentum: BelowOne = 0.9
    """Momentum of SGD and LARS."""
    trust_coefficient: Positive = 0.001
    """LARS: a layer's rate is the global one x this x |weights| / |gradient + decay|."""
    weight_decay: NonNegative = 0.05
    """Weight decay (AdamW's decoupled, the others' added to the gradient); rules of `model.trainable` change it."""
    layer_decay: AboveZero = 1.0
    """Layer-wise learning rate decay: a block d blocks below the head gets lr x layer_decay^d (BEiT, MAE)."""
    schedule: Literal["constant", "cosine", "linear"] = "cosine"
    """What follows the warm-up; cosine and linear end at 0."""
    warmup: Warmup = Warmup(steps=0)
    """Linear warm-up from 0."""
    clip_grad: Positive | None = None
    """Largest global gradient norm; null does not clip."""

    @model_validator(mode="after")
    def _one_rate(self) -> Optimizer:
        if (self.lr is None) == (self.blr is None):
            raise ValueError("needs exactly one of lr and blr")
        for field, users in USED_BY.items():
            if self.name not in users and getattr(self, field) != type(self).model_fields[field].default:
                raise ValueError(f"{field} is a setting of {' and '.join(users)}, which {self.name} does not have")
        return self


USED_BY = {
    "betas": ("adamw",),
    "eps": ("adamw",),
    "momentum": ("sgd", "lars"),
    "trust_coefficient": ("lars",),
}
"""Fields that some algorithms alone have."""
