"""What optimizers keep, and what they make for a moment in a step, as torch 2.13 and train/lars.py do."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from zerofit.config.optimizer import Optimizer
from zerofit.models.trainable import param_groups
from zerofit.models.trained import TrainedModel
from zerofit.plan.spec import RunSpec
from zerofit.predict.sizes import rounded

FLOAT = 4
CHUNK = 65536
"""Elements that a block of threads adds up in the foreach norm (ATen/native/cuda/MultiTensorApply.cuh)."""


def moments(optimizer: Optimizer) -> int:
    """Float32 numbers that it keeps for each element that is trained."""
    return {"adamw": 2, "sgd": 1 if optimizer.momentum else 0, "lars": 1}[optimizer.name]


def groups_of(model: TrainedModel, spec: RunSpec) -> list[list[nn.Parameter]]:
    """Trained parameters, whole, by the groups in which the optimizer is given them."""
    return [group["params"] for group in param_groups(model, spec)]


def kept(optimizer: Optimizer, elements: Sequence[int]) -> int:
    """Bytes of the state of tensors of so many elements each."""
    return moments(optimizer) * sum(rounded(FLOAT * one) for one in elements)


def passing(optimizer: Optimizer, groups: Sequence[Sequence[torch.Size]]) -> int:
    """Bytes that a step makes and drops, on a GPU, of float32 tensors in groups.

    AdamW and SGD work on a whole group at once (`foreach`, which torch chooses on GPUs): AdamW takes the roots of all
    second moments, SGD adds weight decay to all gradients in new tensors. LARS decays and scales a layer at a time.
    """
    sizes = [[rounded(FLOAT * shape.numel()) for shape in group] for group in groups]
    if optimizer.name == "adamw":
        return max(map(sum, sizes))
    if optimizer.name == "sgd":
        return max(map(sum, sizes)) if optimizer.weight_decay else 0
    adapted = [rounded(FLOAT * shape.numel()) for group in groups for shape in group if len(shape) > 1]
    return max(adapted, default=0) * (2 if optimizer.weight_decay else 1)


def norm(elements: Sequence[int]) -> int:
    """Bytes that the norm of all gradients takes: a number for each chunk of the largest, for all tensors alike."""
    return rounded(FLOAT * len(elements) * -(-max(elements, default=0) // CHUNK)) + len(elements) * rounded(1)
