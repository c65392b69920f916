"""The largest micro-batch that fits: doubling, then bisecting."""

from __future__ import annotations

from collections.abc import Callable

FINENESS = 16
"""The answer may be too small by less than one part in so many."""


def largest(fits: Callable[[int], bool], start: int, most: int) -> int:
    """The largest size from 1 to `most` that fits, where a smaller one than one that fits does as well; 0 for none.

    Exact up to 16, above to less than a sixteenth. Every size is asked about once.
    """
    low, high = 0, most + 1  # fits, and does not
    size = min(start, most)
    while high - low > 1 + low // FINENESS:
        if fits(size):
            low = size
            size = min(2 * size, most) if high > most else (low + high) // 2
        else:
            high = size
            size = (low + high) // 2 if low else max(1, size // 2)
    return low
