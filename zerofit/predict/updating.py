"""What the recipe's optimizer keeps of the elements that it updates, and what it makes for a moment.

Sources: torch 2.13, optim/adam.py: the fused kernel (plan/fused.py), and the loop over single tensors on a CPU;
optim/sgd.py: that loop, and on CUDA the one over lists (`foreach`, its default there); zerofit/train/lars.py.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from zerofit.models.trainable import param_groups
from zerofit.models.trained import TrainedModel
from zerofit.plan.fused import is_fused
from zerofit.plan.spec import RunSpec
from zerofit.predict.optimizers import FLOAT, moments


def optimizer_groups(model: TrainedModel, spec: RunSpec) -> list[list[nn.Parameter]]:
    """The parameters of each group of `zerofit.train.optimizers.make_optimizer`, in its order."""
    groups: list[list[nn.Parameter]] = [group["params"] for group in param_groups(model, spec)]
    if spec.recipe.optimizer.name == "lars":
        return [[parameter] for group in groups for parameter in group]
    return groups


def kept(spec: RunSpec, elements: int) -> int:
    """Bytes that stay from step to step, of float32 parameters."""
    return FLOAT * moments(spec.recipe.optimizer) * elements


def made(spec: RunSpec, parameters: Sequence[int], *, on_cuda: bool) -> int:
    """Bytes at the fullest moment of an update of one group, besides parameters, gradients and what is kept.

    `parameters`: elements of each parameter, as the optimizer sees them; `on_cuda`: where it steps them. A fused AdamW
    makes nothing; else the quotient of the root of the second moments comes beside the root, and the one before is
    there still (adam.py, `denom`), as are SGD's decayed gradients, which in lists are of all the group at once.
    """
    if not parameters:
        return 0
    name, whole, largest = spec.recipe.optimizer.name, sum(parameters), max(parameters)
    pairs = list(zip([0, *parameters], parameters, strict=False))
    if name == "lars":  # the decayed gradient, and that times the ratio (`Lars.step`)
        return 2 * FLOAT * largest
    if name == "sgd":  # the decayed gradient
        together = whole if on_cuda else max(map(sum, pairs))
        return FLOAT * together if spec.recipe.optimizer.weight_decay else 0
    if is_fused(spec, spec.hardware.device):
        return 0
    return FLOAT * max(before + 2 * one for before, one in pairs)
