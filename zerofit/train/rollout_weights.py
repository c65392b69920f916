"""How an engine's model comes to generate: its weights are made whole once, and not for every token.

Each function is a context: within, the plain model lies whole on this rank's device and no forward communicates, so
ranks may take as many steps as each needs; after it, all is as it was. Entering and leaving are collective where
weights are sharded.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from zerofit.generate.mode import evaluating


@contextmanager
def plain(model: nn.Module) -> Iterator[nn.Module]:
    """Evaluation mode, no gradients, and blocks that neither recompute nor are compiled.

    A graph cannot capture what saves random states, and a compiled block would be compiled for every length.
    """
    replaced = [(module, vars(module).pop("forward")) for module in model.modules() if "forward" in vars(module)]
    try:
        with evaluating(model):
            yield model
    finally:
        for module, forward in replaced:
            module.forward = forward


@contextmanager
def without_hooks(model: nn.Module) -> Iterator[None]:
    """No hooks around forwards: those of an engine gather weights and drop them again."""
    kept = [(module, module._forward_hooks, module._forward_pre_hooks) for module in model.modules()]
    for module, *_ in kept:
        module._forward_hooks, module._forward_pre_hooks = OrderedDict(), OrderedDict()
    try:
        yield
    finally:
        for module, after, before in kept:
            module._forward_hooks, module._forward_pre_hooks = after, before


@contextmanager
def gathered(model: nn.Module) -> Iterator[None]:
    """Weights that ZeRO-3 has partitioned."""
    import deepspeed
    from deepspeed.runtime.zero.partition_parameters import ZeroParamStatus

    # Those that are kept whole by themselves stay so: the engine counts what it gathers and drops.
    parted = [one for one in model.parameters() if one.ds_status == ZeroParamStatus.NOT_AVAILABLE]  # type: ignore[attr-defined]
    with deepspeed.zero.GatheredParameters(parted, enabled=bool(parted)), without_hooks(model):
        yield


@contextmanager
def unsharded(model: nn.Module) -> Iterator[None]:
    """Weights that `fully_shard` has sharded, in the dtype of its forwards."""
    from torch.distributed.fsdp import FSDPModule

    units = [module for module in model.modules() if isinstance(module, FSDPModule)]
    try:
        for unit in units:
            unit.unshard()
        with without_hooks(model):
            yield
    finally:
        for unit in units:
            unit.reshard()


@contextmanager
def cast(model: nn.Module, dtype: torch.dtype) -> Iterator[None]:
    """Float32 weights of linear layers in the dtype to which autocast would cast them again for every token.

    The numbers are the same. What an embedding shares keeps its dtype, and so do weights that are quantised. Parameters
    are put aside and not changed: one whose data takes another dtype loses the hooks by which DDP reduces its gradient.
    """
    linear = [module for module in model.modules() if isinstance(module, (nn.Linear, Conv1D))]
    other = [module for module in model.modules() if not isinstance(module, (nn.Linear, Conv1D))]
    shared = {id(parameter) for module in other for parameter in module.parameters(recurse=False)}
    aside: list[tuple[nn.Module, str, nn.Parameter]] = []
    for module in linear:
        for name, parameter in list(module.named_parameters(recurse=False)):
            castable = type(parameter) is nn.Parameter and parameter.dtype == torch.float32
            if castable and id(parameter) not in shared:
                aside.append((module, name, parameter))
                module._parameters[name] = nn.Parameter(parameter.detach().to(dtype), requires_grad=False)
    try:
        yield
    finally:
        for owner, name, parameter in aside:
            owner._parameters[name] = parameter
