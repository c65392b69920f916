"""Which CAD model is used when, and beside which: alike in length within a micro-batch, and the same global batches
whatever the ranks and the micro-batches.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from torch.utils.data import Sampler

from zerofit.config.cad import Cad
from zerofit.data.cad_inputs import Numbers, Sizes, draw_at_once, draw_inputs, draw_views
from zerofit.data.order import permutation
from zerofit.plan.spec import Batches

WINDOW = 32
"""Global batches whose samples are regrouped by length: the more, the less padding, and the more alike a batch is."""


class CadKey(NamedTuple):
    """A sample, and what it sees. Not `valid`: it only fills a batch."""

    sample: int
    share: int
    """A number in `Cad.shares`."""
    views: tuple[int, ...]
    """The sides of its images, in their order; not looked at where that share has no image."""
    valid: bool = True


class CadOrder(Sampler[list[CadKey]]):
    """This rank's micro-batches of an epoch, from the place that `seek` names (the beginning of epoch 0 at first).

    An epoch's samples come in random order; those of WINDOW global batches are sorted by length and cut into global
    batches, which come in random order. Within one, micro-batch a * ranks + rank, in order of length, is this rank's
    a-th. The remainder of an epoch that fills no global batch is left out, another one each epoch.
    """

    def __init__(self, sizes: Sizes, data: Cad, batches: Batches, seed: int, rank: int) -> None:
        samples = len(sizes.commands)
        assert batches.global_batch == batches.micro * batches.accumulation * batches.ranks
        assert samples // batches.global_batch == batches.steps_per_epoch > 0
        assert 0 <= rank < batches.ranks
        self.samples, self.sizes, self.data = samples, sizes, data
        self.batches, self.seed, self.rank = batches, seed, rank
        self.epoch, self.step = 0, 0

    def seek(self, epoch: int, step_in_epoch: int = 0) -> None:
        """Make the next iteration begin before this optimizer step of this epoch. `len` is of what remains of it."""
        assert 0 <= step_in_epoch < self.batches.steps_per_epoch
        self.epoch, self.step = epoch, step_in_epoch

    def __len__(self) -> int:
        return (self.batches.steps_per_epoch - self.step) * self.batches.accumulation

    def __iter__(self) -> Iterator[list[CadKey]]:
        epoch, first, sizes, data = self.epoch, self.step, self.batches, self.data
        which = draw_inputs(data.shares, self.seed, epoch, self.samples)
        images = draw_at_once(data.views_at_once, self.seed, epoch, self.samples)
        sides = draw_views(data.views, data.views_at_once[1], self.seed, epoch, self.samples)
        order = self._global_batches(epoch, self.sizes.drawn(data.shares, which, images))
        for step in range(first, sizes.steps_per_epoch):
            for forward in range(sizes.accumulation):
                start = (forward * sizes.ranks + self.rank) * sizes.micro
                here = order[step, start : start + sizes.micro]
                drawn = zip(*(found[here].tolist() for found in (which, images, sides)), strict=True)
                yield [
                    CadKey(sample, share, tuple(sorted(those[:count])))
                    for sample, (share, count, those) in zip(here.tolist(), drawn, strict=True)
                ]

    def _global_batches(self, epoch: int, lengths: Numbers) -> Numbers:
        """[steps, global batch]: samples, those of a row in order of length."""
        size, steps = self.batches.global_batch, self.batches.steps_per_epoch
        order = permutation(self.samples, self.seed, epoch)[: steps * size].reshape(steps, size)
        rows = []
        for start in range(0, steps, WINDOW):
            window = order[start : start + WINDOW].reshape(-1)
            grouped = window[np.argsort(lengths[window], kind="stable")].reshape(-1, size)
            shuffled = np.random.default_rng(np.random.SeedSequence([self.seed, epoch, start])).permutation(
                len(grouped)
            )
            rows.append(grouped[shuffled])
        return np.concatenate(rows)


class CadEvalOrder(Sampler[list[CadKey]]):
    """This rank's batches of an evaluation with the inputs of one share, and the same sides of each model.

    As many, and as large, on every rank, in order of length; each sample is valid exactly once.
    """

    def __init__(self, lengths: Numbers, share: int, views: tuple[int, ...], micro: int, rank: int, ranks: int) -> None:
        assert len(lengths) > 0
        assert 0 <= rank < ranks
        self.order = np.argsort(lengths, kind="stable")
        self.share, self.views, self.micro, self.rank, self.ranks = share, views, micro, rank, ranks

    def __len__(self) -> int:
        return -(-len(self.order) // (self.micro * self.ranks))

    def __iter__(self) -> Iterator[list[CadKey]]:
        samples = len(self.order)
        for batch in range(len(self)):
            start = (batch * self.ranks + self.rank) * self.micro
            yield [
                CadKey(int(self.order[place % samples]), self.share, self.views, place < samples)
                for place in range(start, start + self.micro)
            ]
