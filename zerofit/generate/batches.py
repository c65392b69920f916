"""Prompts in batches: rows of like length together, padded on the left."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

import torch
from torch import Tensor


def batches_of(lengths: Sequence[int], batch: int | None) -> list[list[int]]:
    """Indices of rows, the longest first, in as few batches of at most `batch` as will do, all nearly as large."""
    order = sorted(range(len(lengths)), key=lambda row: (-lengths[row], row))
    count = -(-len(order) // (batch or max(1, len(order))))
    sizes = [len(order) // count + (index < len(order) % count) for index in range(count)]
    return [order[start:end] for start, end in pairwise(accumulate(sizes, initial=0))]


@dataclass(frozen=True)
class Padded:
    """Prompts of one batch; all [rows, width], int64."""

    tokens: Tensor
    mask: Tensor
    """1 for a token, 0 for padding."""
    positions: Tensor
    """Position in the prompt; 0 for padding."""


def pad_left(prompts: Sequence[Sequence[int]], pad: int, rows: int, device: torch.device) -> Padded:
    """The prompts as the last columns of equally long rows; further rows, up to `rows`, have one token of padding."""
    width = max(map(len, prompts))
    tokens = torch.full((rows, width), pad, dtype=torch.int64)
    mask = torch.zeros((rows, width), dtype=torch.int64)
    mask[:, -1] = 1
    for row, prompt in enumerate(prompts):
        tokens[row, width - len(prompt) :] = torch.as_tensor(prompt, dtype=torch.int64)
        mask[row, width - len(prompt) :] = 1
    positions = (mask.cumsum(dim=1) - 1).clamp(min=0)
    return Padded(tokens.to(device), mask.to(device), positions.to(device))
