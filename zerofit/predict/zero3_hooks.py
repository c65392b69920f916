"""The hooks that ZeRO-3 has on modules, in the order in which DeepSpeed 0.19.8 registers them.

File:line are of runtime/zero/parameter_offload.py.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from zerofit.predict.coordinator import Coordinator, Status, Weight
from zerofit.predict.gathering import Gathered
from zerofit.predict.passing import Passed, over_tensors


@dataclass
class Forwards:
    """Which modules are in their forward pass, the innermost last."""

    stack: list[nn.Module]
    open: bool = False
    """Whether the model's own is on, outside a recomputation (runtime/engine.py:2955)."""


@dataclass
class Counts:
    """Of one module."""

    entries: int = 0
    """Outputs of forward passes whose gradients are still to come."""
    exits: int = 0
    """Inputs likewise, of the last forward pass."""


class UsedElsewhere(dict[str, Any]):
    """A module's parameters. One that is asked for while it is not whole belongs to the module whose forward asks, too.

    TRL's fused head reads `lm_head.weight` so (`ZeROOrderedDict`, :41).
    """

    def __init__(self, own: dict[str, Any], forwards: Forwards, hooks: Hooks) -> None:
        super().__init__(own)
        self.forwards, self.hooks = forwards, hooks

    def __getitem__(self, name: str) -> Any:
        parameter = super().__getitem__(name)
        if parameter is not None and self.forwards.open:
            self.hooks.used(parameter)
        return parameter


@dataclass
class Hooks:
    """What they share."""

    coordinator: Coordinator
    weights: dict[int, Weight]
    gathered: Gathered
    forwards: Forwards
    counts: dict[nn.Module, Counts] = field(default_factory=dict)

    def used(self, parameter: Tensor) -> None:
        """By the innermost module that is in its forward pass."""
        weight = self.weights[id(parameter)]
        if weight.status is Status.ABSENT:
            self.coordinator.weights_of[self.forwards.stack[-1]].append(weight)
            self.gathered.at_once(weight)

    def on(self, module: nn.Module) -> None:
        """`_register_deepspeed_module` (:337)."""
        counts = self.counts[module] = Counts()

        def enter_forward(*_: Any) -> None:
            self.forwards.stack.append(module)
            self.coordinator.fetch(module, forward=True)

        def leave_forward(*_: Any) -> None:
            self.forwards.stack.pop()
            self.coordinator.leave(module, forward=True)

        def enter_backward() -> None:
            if counts.entries > 0:
                self.coordinator.fetch(module, forward=False)
                counts.entries -= 1

        def leave_backward() -> None:
            counts.exits -= 1
            if counts.exits == 0:
                self.coordinator.leave(module, forward=False)

        def around_output(output: Tensor) -> Tensor:
            counts.entries += 1
            passed: Tensor = Passed.apply(output, enter_backward)
            return passed

        def around_input(given: Tensor) -> Tensor:
            counts.exits += given.requires_grad
            passed: Tensor = Passed.apply(given, leave_backward)
            return passed

        def watch_inputs(_: nn.Module, inputs: Any) -> Any:
            counts.exits = 0
            return over_tensors(around_input, inputs)

        def watch_outputs(_: nn.Module, __: Any, output: Any) -> Any:
            return over_tensors(around_output, output)

        module.register_forward_pre_hook(enter_forward)
        module.register_forward_hook(leave_forward)
        module.register_forward_hook(watch_outputs)
        module.register_forward_pre_hook(watch_inputs)


def hook_modules(model: nn.Module, coordinator: Coordinator, weights: dict[int, Weight], gathered: Gathered) -> None:
    """Register all of them, but those of modules within a unit."""
    forwards = Forwards([model])
    hooks = Hooks(coordinator, weights, gathered, forwards)

    def begin(*_: Any) -> None:
        forwards.open = True
        coordinator.begin()

    def end(*_: Any) -> None:
        forwards.open = False

    model.register_forward_pre_hook(begin)
    for module in model.modules():
        module._parameters = UsedElsewhere(module._parameters, forwards, hooks)
    for module in hooked(model, coordinator.units):
        hooks.on(module)
    model.register_forward_hook(end)


def hooked(module: nn.Module, units: Collection[nn.Module]) -> Iterator[nn.Module]:
    """It and what is within, outside of units."""
    yield module
    if module not in units:
        for child in module.children():
            yield from hooked(child, units)
