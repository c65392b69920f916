"""How fast a device multiplies matrices, and attends, at the shapes of models."""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F

from zerofit.measure.rates.stopwatch import seconds
from zerofit.plan.calibration import Attention, Product

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
SHORTEST = 2e-5
"""Seconds on a GPU below which a product is hidden by its launch, and says nothing of the GPU."""
FORWARD, BACKWARD = 2, 5
"""Products of attention's passes, as FLOP counters have them: the backward pass computes one of the forward's anew."""


def products(
    shapes: Iterable[tuple[int, int, int]], precision: str, device: torch.device, budget: float
) -> tuple[Product, ...]:
    """Of each (tokens, inputs, outputs), as a linear layer multiplies; in `budget` seconds each.

    float32 is as a run has it: without TF32, unless the process was told otherwise. What finds no room, or is over too
    soon, is left out.
    """
    found = []
    for tokens, inputs, outputs in shapes:
        try:
            rows = torch.randn(tokens, inputs, device=device, dtype=DTYPES[precision])
            weight = torch.randn(outputs, inputs, device=device, dtype=DTYPES[precision])
            taken = seconds(lambda rows=rows, weight=weight: F.linear(rows, weight), device, budget)  # type: ignore[misc]
        except torch.OutOfMemoryError:
            continue
        if device.type == "cuda" and taken < SHORTEST:
            continue
        tera = 2 * tokens * inputs * outputs / taken / 1e12
        found.append(Product(tokens=tokens, inputs=inputs, outputs=outputs, tera=significant(tera)))
    return tuple(found)


def attention(
    shapes: Iterable[tuple[int, int, int, int]], precision: str, device: torch.device, budget: float
) -> tuple[Attention, ...]:
    """Of each (batch, heads, tokens, width), by the kernel that PyTorch chooses; in `budget` seconds a pass."""
    found = []
    for batch, heads, tokens, width in shapes:
        try:
            made = torch.randn(3, batch, heads, tokens, width, device=device, dtype=DTYPES[precision])
            query, key, value = (one.requires_grad_() for one in made.unbind(0))
            forward, backward = _passes(query, key, value, device, budget)
        except torch.OutOfMemoryError:
            continue
        flops = 2 * batch * heads * tokens**2 * width
        found.append(
            Attention(
                batch=batch,
                heads=heads,
                tokens=tokens,
                width=width,
                forward_tera=significant(FORWARD * flops / forward / 1e12),
                backward_tera=significant(BACKWARD * flops / backward / 1e12),
            )
        )
    return tuple(found)


def _passes(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, device: torch.device, budget: float
) -> tuple[float, float]:
    out = F.scaled_dot_product_attention(query, key, value)
    gradient = torch.ones_like(out)

    def backward() -> object:
        return torch.autograd.grad(out, (query, key, value), gradient, retain_graph=True)

    with torch.no_grad():
        taken = seconds(lambda: F.scaled_dot_product_attention(query, key, value), device, budget)
    return taken, seconds(backward, device, budget)


def significant(number: float) -> float:
    """To four digits."""
    return float(f"{number:.4g}")
