"""What an optimizer keeps of each element that it trains, and what the norm of all gradients takes."""

from __future__ import annotations

from collections.abc import Sequence

from zerofit.config.optimizer import Optimizer
from zerofit.predict.sizes import rounded

FLOAT = 4
CHUNK = 65536
"""Elements that a block of threads adds up in the foreach norm (ATen/native/cuda/MultiTensorApply.cuh)."""


def moments(optimizer: Optimizer) -> int:
    """Float32 numbers that it keeps for each element that is trained."""
    return {"adamw": 2, "sgd": 1 if optimizer.momentum else 0, "lars": 1}[optimizer.name]


def norm(elements: Sequence[int]) -> int:
    """Bytes that the norm of tensors of so many elements takes: a number for each chunk of the largest, for all alike.

    Each tensor's own norm comes on top.
    """
    return rounded(FLOAT * len(elements) * -(-max(elements, default=0) // CHUNK)) + len(elements) * rounded(1)
