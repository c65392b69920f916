"""Which samples of a test are shown: a few that were classified rightly, and a few that were not.

They are drawn by a hash of the seed and the sample's number: the same ones whatever the ranks and the batches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from zerofit.measure.accuracy import IGNORED

SHOWN = 16
"""Samples in all; half of them wrong where there are as many."""
TOP = 5
NEVER = 2**62
"""The rank in the draw of a row that holds no sample."""


@dataclass(frozen=True)
class Sample:
    """A sample of a split, and what the model says of it."""

    index: int
    label: int
    top: tuple[tuple[int, float], ...]
    """(class, probability), most probable first."""

    @property
    def predicted(self) -> int:
        """The most probable class."""
        return self.top[0][0]


class Samples:
    """Keeps the first SHOWN right and wrong ones of the draw over any number of batches, on the device."""

    def __init__(self, classes: int, seed: int, device: torch.device | str = "cpu") -> None:
        self.seed, self.top = seed, min(TOP, classes)
        row = torch.tensor(
            [NEVER, 0, 0, *[0] * self.top], dtype=torch.int64, device=device
        )  # draw, index, label, classes
        self._rows = {right: row.repeat(SHOWN, 1) for right in (True, False)}
        blank = torch.zeros(SHOWN, self.top, dtype=torch.float64, device=device)
        self._shares = {right: blank for right in (True, False)}

    def add(self, index: Tensor, logits: Tensor, labels: Tensor, valid: Tensor | None = None) -> None:
        """Consider a batch: index int64 [B] of the samples; the rest as in `Tally.add`. Waits for no device."""
        counted = labels != IGNORED if valid is None else (labels != IGNORED) & valid
        shares, classes = logits.detach().double().softmax(dim=1).topk(self.top, dim=1)
        for right, rows in self._rows.items():
            wanted = counted & ((classes[:, 0] == labels) == right)
            draw = torch.where(wanted, drawn(index, self.seed), NEVER)
            joined = torch.cat([rows, torch.cat([torch.stack([draw, index, labels], dim=1), classes], dim=1)])
            first = joined[:, 0].argsort(stable=True)[:SHOWN]
            self._rows[right], self._shares[right] = joined[first], torch.cat([self._shares[right], shares])[first]

    def chosen(self) -> list[Sample]:
        """Wrong ones and right ones, each in the order of the draw, of all ranks together. Collective."""
        everyone: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(everyone, (self._kept(right=False), self._kept(right=True)))
        wrong, right = (_in_order(parts) for parts in zip(*everyone, strict=True))
        rights = min(len(right), max(SHOWN // 2, SHOWN - len(wrong)))
        return wrong[: SHOWN - rights] + right[:rights]

    def _kept(self, right: bool) -> dict[int, Sample]:
        """By their place in the draw."""
        pairs = zip(self._rows[right].tolist(), self._shares[right].tolist(), strict=True)
        return {
            draw: Sample(index, label, tuple(zip(classes, shares, strict=True)))
            for (draw, index, label, *classes), shares in pairs
            if draw < NEVER
        }


def _in_order(parts: Sequence[dict[int, Sample]]) -> list[Sample]:
    """A sample that several ranks have seen is there once."""
    joined = {draw: sample for part in parts for draw, sample in part.items()}
    return [joined[draw] for draw in sorted(joined)]


def drawn(index: Tensor, seed: int) -> Tensor:
    """int64 [B] -> int64 [B] below 2**62: 30 bits of a hash (T. Mueller's, no product overflows), then the index."""
    key = (index + seed * 0x9E3779B1) & 0xFFFFFFFF
    for _ in range(2):
        key = ((key >> 16 ^ key) * 0x45D9F3B) & 0xFFFFFFFF
    return ((key >> 16 ^ key) >> 2 << 32) + (index & 0xFFFFFFFF)
