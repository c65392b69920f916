"""How many bytes a checkpoint will have, before the first one is there to tell."""

from __future__ import annotations

from torch import nn

from zerofit.models.frozen import trains_a_part
from zerofit.plan.spec import RunSpec
from zerofit.train.engine import Engine
from zerofit.train.saving import MASTER_BYTES, STATE_BYTES


def checkpoint_bytes(model: nn.Module, spec: RunSpec, engine: Engine) -> int:
    """Weights, as often as `engine` writes them, and the optimizer's state of those that are trained."""
    part = trains_a_part(spec.recipe)
    total = 0
    for parameter in model.parameters():
        elements, trains = engine.shape_of(parameter).numel(), parameter.requires_grad
        if trains or not part:
            total += elements * parameter.element_size() * engine.weight_copies()
        if trains:
            total += elements * (STATE_BYTES[spec.recipe.optimizer.name] + MASTER_BYTES * engine.flat_sharded)
    return total
