"""The optimizer of a recipe, over the parameters as the engine holds them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import prod
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from zerofit.models.trainable import param_groups
from zerofit.models.trained import TrainedModel
from zerofit.plan.fused import is_fused
from zerofit.plan.spec import RunSpec
from zerofit.train.lars import Lars

if TYPE_CHECKING:
    from zerofit.train.engine import Engine

OPTIMIZERS: dict[str, type[torch.optim.Optimizer]] = {"adamw": torch.optim.AdamW, "sgd": torch.optim.SGD, "lars": Lars}
"""By the name that a recipe gives in `optimizer.name`."""


def make_optimizer(model: TrainedModel, spec: RunSpec, engine: Engine) -> torch.optim.Optimizer:
    """The recipe's optimizer over the groups of `model.trainable`; to be called before the engine takes them over."""
    settings, groups = spec.recipe.optimizer, param_groups(model, spec)
    if settings.name == "lars":
        return Lars(
            layer_by_layer(groups, engine.shape_of),
            lr=spec.lr,
            momentum=settings.momentum,
            trust_coefficient=settings.trust_coefficient,
            flat_sharded=engine.flat_sharded,
            device=engine.device,
        )
    if settings.name == "sgd":
        return torch.optim.SGD(groups, lr=spec.lr, momentum=settings.momentum)
    fused = is_fused(spec, engine.device.type)
    made = torch.optim.AdamW(groups, lr=spec.lr, betas=settings.betas, eps=settings.eps, fused=fused or None)
    # Else torch's GradScaler leaves it to the fused kernel to skip a step (amp/grad_scaler.py, `step`), and accelerate,
    # which looks whether `step` is called (accelerate/optimizer.py), lets the schedule go on after an overflow of fp16.
    made._step_supports_amp_scaling = False
    return made


def group_names(model: TrainedModel, spec: RunSpec) -> list[list[str]]:
    """Names of the parameters in each group of `make_optimizer`, in its order, however they are held."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = [[names[id(parameter)] for parameter in group["params"]] for group in param_groups(model, spec)]
    if spec.recipe.optimizer.name == "lars":
        return [[name] for group in groups for name in group]
    return groups


def layer_by_layer(groups: Iterable[dict[str, Any]], shape_of: Callable[[Tensor], torch.Size]) -> list[dict[str, Any]]:
    """A group for each parameter, in the same order, with what LARS cannot see once it is flat: `adapt` and `numel`.

    `shape_of` gives a parameter's whole shape.
    """
    split = []
    for group in groups:
        for parameter in group["params"]:
            shape = shape_of(parameter)
            split.append({**group, "params": [parameter], "adapt": len(shape) > 1, "numel": prod(shape)})
    return split
