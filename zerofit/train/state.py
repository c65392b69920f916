"""Where a run stands, whatever engine it was under: what `Engine.restore` puts into an engine.

Tensors are whole and float32 and come one at a time, from files: no rank ever holds more than one besides its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

Reader = Callable[[], Tensor]
"""Gives a tensor on the CPU. It may share memory with a file: copy it before it is changed."""


@dataclass(frozen=True)
class LossScale:
    """By what a loss in fp16 is multiplied."""

    scale: float
    good_steps: int
    """Steps since the last overflow, or since it was last changed."""
    hysteresis: int | None = None
    """How many overflows more DeepSpeed takes before it halves the scale; null: not said."""


@dataclass(frozen=True)
class TrainingState:
    """Names are those of `model.named_parameters()`."""

    weights: Mapping[str, Reader]
    """The master weight of each parameter that is trained."""
    moments: Mapping[str, Mapping[str, Reader]] = field(default_factory=dict)
    """Of each parameter, what its optimizer keeps of the same shape: `exp_avg`, `exp_avg_sq`, `momentum_buffer`."""
    counts: Mapping[str, float] = field(default_factory=dict)
    """Of each parameter, how many steps its optimizer has counted (AdamW's `step`); none for optimizers that do not."""
    buffers: Mapping[str, Reader] = field(default_factory=dict)
    """What the model keeps besides parameters, such as running statistics."""
    schedule: Mapping[str, Any] = field(default_factory=dict)
    """State dict of the learning rate's schedule."""
    loss_scale: LossScale | None = None
    """Null where the precision needs none."""
