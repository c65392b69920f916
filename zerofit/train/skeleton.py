"""A module and an optimizer that hold the state of a program that is not here, for DeepSpeed to write it again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from zerofit.models.zero_anatomy import ZeroAnatomy


def skeleton(anatomy: ZeroAnatomy) -> nn.Module:
    """The program's module without its layers: the same names in the same order, frozen values and buffers in place.

    What is trained is left blank.
    """
    root, made = nn.Module(), dict[str, nn.Parameter]()
    trained = {name for group in anatomy.groups for name in group}
    for name in (*anatomy.parameters, *anatomy.shared):
        source = anatomy.shared.get(name, name)
        if source not in made:
            shape = anatomy.parameters[source]
            blank = source in trained
            value = torch.zeros(shape, dtype=anatomy.dtype) if blank else anatomy.frozen[source]().clone()
            made[source] = nn.Parameter(value, requires_grad=blank)
    for name in anatomy.order:
        owner, leaf = _owner(root, name)
        if name in anatomy.buffers:
            owner.register_buffer(leaf, anatomy.buffers[name].clone())
        else:
            owner.register_parameter(leaf, made[anatomy.shared.get(name, name)])
    return root


def _owner(root: nn.Module, name: str) -> tuple[nn.Module, str]:
    """The module that has `name`, made where it is not there, and the name within it."""
    *path, leaf = name.split(".")
    module = root
    for part in path:
        if part not in module._modules:
            module.add_module(part, nn.Module())
        module = module.get_submodule(part)
    return module, leaf


class Held(torch.optim.Optimizer):
    """An optimizer's settings and state, whichever it was; it makes no steps."""

    def __init__(self, module: nn.Module, anatomy: ZeroAnatomy) -> None:
        groups = [
            {**settings, "params": [module.get_parameter(name) for name in names]}
            for names, settings in zip(anatomy.groups, anatomy.settings, strict=True)
        ]
        super().__init__(groups, {})

    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Never."""
        raise AssertionError("a held state is not trained")


class HeldSchedule:
    """A schedule's state, whichever it was."""

    def __init__(self, state: Mapping[str, Any]) -> None:
        self.state = state

    def state_dict(self) -> dict[str, Any]:
        """As it was."""
        return dict(self.state)
