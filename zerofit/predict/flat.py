"""How DeepSpeed's ZeRO-1 and 2 lay a group of parameters end to end and cut it into equal partitions, in elements.

File:line are of DeepSpeed 0.19.8, runtime/zero/stage_1_and_2.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate


@dataclass(frozen=True)
class Cut:
    """What of a parameter lies in one partition."""

    partition: int
    length: int


@dataclass(frozen=True)
class Flat:
    """A group of parameters, `sizes` elements each, over `ranks`."""

    sizes: tuple[int, ...]
    ranks: int

    @cached_property
    def elements(self) -> int:
        """All of them with what aligns the group to two elements a rank (:440)."""
        unit = 2 * self.ranks
        return -(-sum(self.sizes) // unit) * unit

    @property
    def partition(self) -> int:
        """Elements of each rank."""
        return self.elements // self.ranks

    @property
    def padded(self) -> bool:
        """Whether the group ends in padding."""
        return self.elements > sum(self.sizes)

    @cached_property
    def cuts(self) -> tuple[tuple[Cut, ...], ...]:
        """Of each parameter its parts, in order (`initialize_gradient_partition`, :1104)."""
        ends = accumulate(self.sizes)
        return tuple(
            tuple(
                Cut(number, min(end, (number + 1) * self.partition) - max(end - size, number * self.partition))
                for number in range((end - size) // self.partition, -(-end // self.partition))
            )
            for size, end in zip(self.sizes, ends, strict=True)
        )

    def of(self, rank: int) -> list[tuple[int, int]]:
        """(index of a parameter, elements of it) in the partition of `rank` (`get_partition_info`, :2585)."""
        return [(index, cut.length) for index, cuts in enumerate(self.cuts) for cut in cuts if cut.partition == rank]
