"""How fast the host takes AdamW's steps, as a run with offload does."""

from __future__ import annotations

import torch

from zerofit.measure.rates.stopwatch import seconds

MOVED = 28
"""Bytes that AdamW reads and writes for an element in float32, as the planner counts them (predict/traffic.py)."""


def adam_rate(elements: int, budget: float) -> float:
    """Bytes a second, by this process's threads: PyTorch's AdamW, which runs with offload use."""
    weight = torch.nn.Parameter(torch.ones(elements))
    weight.grad = torch.full((elements,), 1e-3)
    optimizer = torch.optim.AdamW([weight], lr=1e-4)
    return MOVED * elements / seconds(optimizer.step, torch.device("cpu"), budget)
