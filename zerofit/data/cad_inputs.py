"""What a row of the task cad sees in an epoch, and how many tokens it then has: functions of (seed, epoch, sample)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from zerofit.config.cad import Inputs, Share
from zerofit.data.draws import Purpose, uniforms

Numbers = NDArray[np.int64]


@dataclass(frozen=True)
class Slots:
    """Tokens that a cloud and an image take in a sample."""

    points: int
    image: int

    def of(self, inputs: Inputs) -> int:
        """All that these inputs take."""
        return self.points * inputs.points + self.image * inputs.image


@dataclass(frozen=True)
class Sizes:
    """Tokens of samples."""

    captions: Numbers
    """[n], of a prompt with its caption."""
    commands: Numbers
    """[n], of what is learnt, end of sequence included."""
    bare: int
    """Of a prompt without caption."""
    slots: Slots

    def of(self, inputs: Inputs) -> Numbers:
        """[n], of each sample that sees these inputs."""
        prompts = self.captions if inputs.text else np.full_like(self.captions, self.bare)
        return prompts + self.commands + self.slots.of(inputs)

    def drawn(self, shares: Sequence[Share], which: Numbers) -> Numbers:
        """[n], of each sample that sees the inputs of the share of that number."""
        table = np.stack([self.of(one.inputs) for one in shares])
        return table[which, np.arange(len(which))]


def draw_inputs(shares: Sequence[Share], seed: int, epoch: int, samples: int) -> Numbers:
    """[samples]: the number of the share whose inputs each sample sees in that epoch."""
    draws = _draws(seed, epoch, samples, Purpose.INPUTS)
    bounds = np.cumsum([one.share for one in shares])[:-1]
    return np.searchsorted(bounds, draws, side="right").astype(np.int64)


def draw_views(views: int, seed: int, epoch: int, samples: int) -> Numbers:
    """[samples]: from which of so many sides each sample is seen in that epoch."""
    return (_draws(seed, epoch, samples, Purpose.VIEW) * views).astype(np.int64)


def _draws(seed: int, epoch: int, samples: int, purpose: Purpose) -> NDArray[np.float64]:
    which = np.arange(samples, dtype=np.int64)
    return uniforms(seed, np.full(samples, epoch, dtype=np.int64), which, purpose, 1)[:, 0]
