"""What DeepSpeed 0.19.8 puts in the place of F.linear under ZeRO-3 (runtime/zero/linear.py:84).

Autograd then holds no gathered weight, gives a weight's gradient before its bias's, and keeps the input even where the
weight is frozen.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class Linear(torch.autograd.Function):
    """x W^T + b."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight, bias)
        if x.dim() == 2 and bias is not None:
            return torch.addmm(bias, x, weight.t())
        product = x.matmul(weight.t())
        if bias is not None:
            product += bias
        return product

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias = ctx.saved_tensors
        of_input, of_weight, of_bias = ctx.needs_input_grad
        rows = gradient.reshape(-1, gradient.shape[-1])
        given = gradient.matmul(weight) if of_input else None
        for_weight = rows.t().matmul(x.reshape(-1, x.shape[-1])) if of_weight else None
        for_bias = gradient.sum(list(range(gradient.dim() - 1))) if bias is not None and of_bias else None
        return given, for_weight, for_bias


def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """In the place of F.linear."""
    product: Tensor = Linear.apply(input, weight, bias)
    return product
