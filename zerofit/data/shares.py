"""Which rank computes which chunks of a feature cache, in which forwards."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch.utils.data import Sampler

from zerofit.data.cache import Part
from zerofit.data.order import TrainKey


@dataclass(frozen=True)
class Share:
    """This rank's part of the work: as many chunks as every other rank's, each in equally large forwards."""

    part: Part
    chunks: tuple[int, ...]
    """The chunks to compute, in order; those at the end may be another rank's too, and are not kept."""
    kept: int
    """How many are this rank's own."""
    forwards: int
    """Forwards of a chunk."""
    micro: int
    """Images of a forward."""


def share(part: Part, todo: Sequence[int], micro: int, rank: int, ranks: int) -> Share:
    """Rank `rank`'s share of the chunks `todo`; `micro` is the most images of a forward."""
    own = tuple(todo[rank::ranks])
    rounds = -(-len(todo) // ranks)
    forwards = -(-part.chunk // micro)
    return Share(part, own + (todo[0],) * (rounds - len(own)), len(own), forwards, -(-part.chunk // forwards))


class ChunkOrder(Sampler[list[TrainKey]]):
    """The images of a share's forwards; what would lie behind the last row is the last row again."""

    def __init__(self, share: Share) -> None:
        self.share = share

    def __len__(self) -> int:
        return len(self.share.chunks) * self.share.forwards

    def __iter__(self) -> Iterator[list[TrainKey]]:
        part, micro = self.share.part, self.share.micro
        for chunk in self.share.chunks:
            for forward in range(self.share.forwards):
                start = part.span(chunk).start + forward * micro
                rows = (min(row, part.rows - 1) for row in range(start, start + micro))
                yield [TrainKey(row % part.images, row // part.images, row % part.images) for row in rows]
