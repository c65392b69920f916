"""Seconds that a GPU takes for the operations of a fake run, each by what limits it: arithmetic, memory or its launch.

The roofline model of Williams et al. 2009, an operation at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import flop_registry

from zerofit.measure.operations import is_view, tensors
from zerofit.models.trained import TrainedModel
from zerofit.predict.ledger import Phase
from zerofit.predict.rates import Rates

STEP: tuple[Phase, ...] = ("forward", "backward")
LOW = (torch.float16, torch.bfloat16)
ATTENTION = "scaled_dot_product"
"""What the names of attention's operations have in them."""


class Roofline:
    """An observer of operations that adds up their seconds."""

    def __init__(self, rates: Rates, precision: str) -> None:
        self.rates, self.precision = rates, precision
        self.seconds = 0.0
        self.operations = 0
        self.flops = 0
        self.micro_steps = 0
        self._phase: Phase = "init"
        self.trained = self.frozen = self.gradients = self.modules = self.units = 0

    def begin(self, model: TrainedModel) -> None:
        """Count its parameters, the modules that have any of their own, and those of them that are in no block."""
        for parameter in model.parameters():
            if parameter.requires_grad:
                self.trained += parameter.numel()
                self.gradients += 1
            else:
                self.frozen += parameter.numel()
        self.modules = _with_weights(model)
        blocks = list(chain.from_iterable(model.stacks))
        self.units = self.modules + len(blocks) - sum(map(_with_weights, blocks))

    def op(self, func: Any, args: Sequence[Any], outputs: Any, phase: Phase) -> None:
        """Of the overload `func`, after it. A view costs nothing, and what is no part of a training step."""
        if phase == "forward" != self._phase:
            self.micro_steps += 1
        self._phase = phase
        if phase not in STEP:
            return
        made, given = list(tensors(outputs)), list(tensors(args))
        if is_view(func, given, made):
            return
        moved = sum(tensor.numel() * tensor.element_size() for tensor in (*made, *given))
        flops, rate = 0, self.rates.products["fp32"]
        if func.overloadpacket in flop_registry:
            attends = ATTENTION in func.name()
            flops = flop_registry[func.overloadpacket](*(_alike(args) if attends else args), out_val=outputs)
            low = any(tensor.dtype in LOW for tensor in given)
            rate = self.rates.product(self.precision if low else "fp32", flops)
            if low and attends:
                rate = self.rates.attends(phase, flops, rate)
        self.flops += flops
        self.operations += 1
        self.seconds += max(flops / rate, moved / self.rates.memory, self.rates.kernel_s)


def _alike(args: Sequence[Any]) -> list[Any]:
    """Attention's arguments; of tensors shapes, in which keys and values have as many heads as queries.

    Several of these may share one of those; the count of torch 2.11 raises at such.
    """
    heads = max(one.shape[1] for one in args if isinstance(one, Tensor) and one.ndim == 4)
    return [
        torch.Size((len(one), heads, *one.shape[2:])) if isinstance(one, Tensor) and one.ndim == 4 else one
        for one in args
    ]


def _with_weights(module: nn.Module) -> int:
    return sum(1 for one in module.modules() if list(one.parameters(recurse=False)))
