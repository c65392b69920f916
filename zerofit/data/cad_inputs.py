"""What a row of the task cad sees in an epoch, and how many tokens it then has: functions of (seed, epoch, sample)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from zerofit.config.cad import Inputs, Share
from zerofit.data.draws import Purpose, uniforms

Numbers = NDArray[np.int64]
Images = TypeVar("Images", int, float, NDArray[np.int64])
"""How many: of a row, on average, or [n]."""


@dataclass(frozen=True)
class Slots:
    """Tokens that a cloud and each image take in a sample."""

    points: int
    image: int

    def of(self, inputs: Inputs, images: Images) -> Images:
        """All that these inputs take, with so many images where they have any."""
        return self.points * inputs.points + self.image * inputs.image * images


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

    def of(self, inputs: Inputs, images: int | Numbers) -> Numbers:
        """[n], of each sample that sees these inputs, with so many images (or [n]) where they have any."""
        prompts = self.captions if inputs.text else np.full_like(self.captions, self.bare)
        return prompts + self.commands + self.slots.of(inputs, np.asarray(images))

    def drawn(self, shares: Sequence[Share], which: Numbers, images: Numbers) -> Numbers:
        """[n], of each sample that sees the inputs of the share of that number, and so many images."""
        table = np.stack([self.of(one.inputs, images) for one in shares])
        return table[which, np.arange(len(which))]


def draw_inputs(shares: Sequence[Share], seed: int, epoch: int, samples: int) -> Numbers:
    """[samples]: the number of the share whose inputs each sample sees in that epoch."""
    draws = _draws(seed, epoch, samples, Purpose.INPUTS, 1)[:, 0]
    bounds = np.cumsum([one.share for one in shares])[:-1]
    return np.searchsorted(bounds, draws, side="right").astype(np.int64)


def draw_at_once(bounds: tuple[int, int], seed: int, epoch: int, samples: int) -> Numbers:
    """[samples]: how many images each sample shows in that epoch, any number within the bounds as often."""
    least, most = bounds
    draws = _draws(seed, epoch, samples, Purpose.AT_ONCE, 1)[:, 0]
    return least + (draws * (most - least + 1)).astype(np.int64)


def draw_views(views: int, most: int, seed: int, epoch: int, samples: int) -> Numbers:
    """[samples, most]: from which of so many sides each sample is seen in that epoch, no two of a row the same.

    The first k of a row are a draw of k sides, so that what is shown beside a side changes nothing about it.
    """
    draws = _draws(seed, epoch, samples, Purpose.VIEW, most)
    rows, sides = np.arange(samples), np.tile(np.arange(views, dtype=np.int64), (samples, 1))
    for place in range(most):  # the beginning of Fisher and Yates's shuffle
        other = place + (draws[:, place] * (views - place)).astype(np.int64)
        sides[rows, place], sides[rows, other] = sides[rows, other], sides[rows, place]
    return sides[:, :most]


def _draws(seed: int, epoch: int, samples: int, purpose: Purpose, count: int) -> NDArray[np.float64]:
    which = np.arange(samples, dtype=np.int64)
    return uniforms(seed, np.full(samples, epoch, dtype=np.int64), which, purpose, count)
