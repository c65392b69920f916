"""Fresh weights, each a function of (seed, parameter name) alone: every strategy starts from the same ones.

A family's are what transformers' own `_init_weights` of the family draws (normal with `initializer_range`, zero
biases, unit norms; GPT-2's residual projections smaller; Gemma's norms zero), others the model's own. They are drawn
one parameter at a time, in float32 on the run's device, so a model that fits only in shards is never whole. CPU and
GPU draw different numbers from the same seed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from itertools import accumulate

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from zerofit.config.errors import UserError
from zerofit.models.trained import TrainedModel
from zerofit.plan.seeds import seed_of


def fresh_weights(
    skeleton: TrainedModel, names: Iterable[str], seed: int, device: torch.device
) -> Iterator[tuple[str, Tensor]]:
    """(name, float32 value on `device`) of the parameters `names`, in that order.

    `skeleton` is the model with its parameters on the meta device; it is left as it was. The global random state is
    left as it was, too. Raises UserError where transformers has no initial value for a parameter.
    """
    families = skeleton.families
    for name in names:
        value = torch.full(skeleton.get_parameter(name).shape, torch.nan, dtype=torch.float32, device=device)
        with untouched_random_state(device), torch.no_grad():
            torch.manual_seed(seed_of(seed, name))
            family = next((one for one in families if name.startswith(one)), None)
            if family is None:
                skeleton.draw(name, value)
            else:
                _draw_family(families[family], name.removeprefix(family), value)
        if value.sum().isnan():  # `isnan` of each would take memory
            raise UserError(f"model: transformers has no initial value for {name} of this family; use model.pretrained")
        yield name, value


def untouched_random_state(device: torch.device) -> AbstractContextManager[None]:
    """The global random state of the CPU and of `device` is afterwards what it was."""
    return torch.random.fork_rng([device] if device.type == "cuda" else [])


def _draw_family(family: PreTrainedModel, name: str, value: Tensor) -> None:
    """Fill `value` as the family's `_init_weights` fills the parameter `name`.

    It is called on the parameter's module and then on each module around it, as transformers does: GPT-2 rescales in
    the block what the layer drew. All other parameters are on the meta device, where drawing costs nothing and leaves
    the random state alone.
    """
    path, _, leaf = name.rpartition(".")
    steps = path.split(".") if path else []
    modules = list(accumulate(steps, getattr, initial=family))
    owner = modules[-1]
    placeholder = owner._parameters[leaf]
    owner._parameters[leaf] = nn.Parameter(value)
    try:
        for index in reversed(range(len(modules))):
            # A model inside the model (OPT's decoder) initialises what lies in it.
            model = next(module for module in modules[index::-1] if isinstance(module, PreTrainedModel))
            model._init_weights(modules[index])
    finally:
        owner._parameters[leaf] = placeholder
