"""Which sample is used when: a function of the seed alone, whatever the ranks and the micro-batches."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler

from zerofit.plan.spec import Batches


class TrainKey(NamedTuple):
    """A training sample. `partner` is the sample that mixup and CutMix mix it with: the next one of the epoch."""

    sample: int
    epoch: int
    partner: int


class EvalKey(NamedTuple):
    """A sample of evaluation; `valid` is False for one that only fills a batch."""

    sample: int
    valid: bool


def permutation(samples: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """The order of an epoch's samples."""
    return np.random.default_rng(np.random.SeedSequence([seed, epoch])).permutation(samples)


class TrainOrder(Sampler[list[TrainKey]]):
    """This rank's micro-batches of an epoch, from the place that `seek` names (the beginning of epoch 0 at first).

    Optimizer step k of an epoch takes the global batch perm[k*G : (k+1)*G]; its micro-batch a * ranks + rank is this
    rank's a-th. The remainder of an epoch that fills no global batch is left out, another one each epoch.
    """

    def __init__(self, samples: int, batches: Batches, seed: int, rank: int) -> None:
        assert batches.global_batch == batches.micro * batches.accumulation * batches.ranks
        assert samples // batches.global_batch == batches.steps_per_epoch > 0
        assert 0 <= rank < batches.ranks
        self.samples, self.batches, self.seed, self.rank = samples, batches, seed, rank
        self.epoch, self.step = 0, 0

    def seek(self, epoch: int, step_in_epoch: int = 0) -> None:
        """Make the next iteration begin before this optimizer step of this epoch. `len` is of what remains of it."""
        assert 0 <= step_in_epoch < self.batches.steps_per_epoch
        self.epoch, self.step = epoch, step_in_epoch

    def __len__(self) -> int:
        return (self.batches.steps_per_epoch - self.step) * self.batches.accumulation

    def __iter__(self) -> Iterator[list[TrainKey]]:
        epoch, first, sizes = self.epoch, self.step, self.batches
        order = permutation(self.samples, self.seed, epoch)
        partners = np.roll(order, -1)
        for step in range(first, sizes.steps_per_epoch):
            for forward in range(sizes.accumulation):
                start = step * sizes.global_batch + (forward * sizes.ranks + self.rank) * sizes.micro
                here = slice(start, start + sizes.micro)
                yield [
                    TrainKey(sample, epoch, partner)
                    for sample, partner in zip(order[here].tolist(), partners[here].tolist(), strict=True)
                ]


class EvalOrder(Sampler[list[EvalKey]]):
    """This rank's batches of an evaluation: as many, and as large, on every rank; each sample is valid exactly once."""

    def __init__(self, samples: int, micro: int, rank: int, ranks: int) -> None:
        assert samples > 0
        assert 0 <= rank < ranks
        self.samples, self.micro, self.rank, self.ranks = samples, micro, rank, ranks

    def __len__(self) -> int:
        return -(-self.samples // (self.micro * self.ranks))

    def __iter__(self) -> Iterator[list[EvalKey]]:
        for batch in range(len(self)):
            start = (batch * self.ranks + self.rank) * self.micro
            yield [EvalKey(i % self.samples, i < self.samples) for i in range(start, start + self.micro)]
