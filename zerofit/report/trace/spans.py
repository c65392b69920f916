"""Arithmetic of intervals: sets of disjoint spans of time, as two arrays, starts and ends, in order."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Times = NDArray[np.float64]
Spans = tuple[Times, Times]


def union(starts: Any, lengths: Any) -> Spans:
    """What any of the intervals covers. Intervals that touch are one, and those of no length are none."""
    starts, lengths = np.asarray(starts, dtype=np.float64), np.asarray(lengths, dtype=np.float64)
    kept = lengths > 0
    order = np.argsort(starts[kept], kind="stable")
    starts, ends = starts[kept][order], (starts[kept] + lengths[kept])[order]
    if not len(starts):
        return starts, ends
    reached = np.maximum.accumulate(ends)
    fresh = np.concatenate([[True], starts[1:] > reached[:-1]])
    last = np.concatenate([np.flatnonzero(fresh)[1:] - 1, [len(starts) - 1]])
    return starts[fresh], reached[last]


def total(spans: Spans) -> float:
    """How long they are."""
    return float((spans[1] - spans[0]).sum())


def both(one: Spans, other: Spans) -> float:
    """How long the time is that both cover."""
    return total(one) + total(other) - total(joined(one, other))


def joined(*sets: Spans) -> Spans:
    """What any of the sets covers."""
    starts, ends = (np.concatenate([spans[side] for spans in sets]) for side in (0, 1))
    return union(starts, ends - starts)


def gaps(spans: Spans) -> Spans:
    """The times between them."""
    return spans[1][:-1], spans[0][1:]


def within(spans: Spans, first: float, last: float) -> Spans:
    """The part of them from `first` to `last`."""
    starts, ends = np.clip(spans[0], first, last), np.clip(spans[1], first, last)
    return starts[ends > starts], ends[ends > starts]


def moved(spans: Spans, by: float) -> Spans:
    """Later by so much."""
    return spans[0] + by, spans[1] + by


def coarser(spans: Spans, gap: float) -> Spans:
    """With gaps up to `gap` filled."""
    if not len(spans[0]):
        return spans
    kept = spans[0][1:] - spans[1][:-1] > gap
    return spans[0][np.concatenate([[True], kept])], spans[1][np.concatenate([kept, [True]])]
