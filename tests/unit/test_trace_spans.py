"""Arithmetic of intervals, against counting microsecond by microsecond."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from zerofit.report.trace import spans
from zerofit.report.trace.body import MOST_SPANS, make_strip

INTERVALS = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 12)), max_size=12)
Intervals = list[tuple[int, int]]


def made(intervals: Intervals) -> spans.Spans:
    return spans.union([start for start, _ in intervals], [length for _, length in intervals])


def covered(intervals: Intervals) -> set[int]:
    return {at for start, length in intervals for at in range(start, start + length)}


def points(some: spans.Spans) -> set[int]:
    return {at for start, end in zip(*some, strict=True) for at in range(int(start), int(end))}


@given(INTERVALS, INTERVALS)
def test_against_counting(one: Intervals, other: Intervals) -> None:
    a, b = made(one), made(other)
    assert points(a) == covered(one)
    assert spans.total(a) == len(covered(one))
    assert spans.both(a, b) == len(covered(one) & covered(other))
    assert points(spans.joined(a, b)) == covered(one) | covered(other)
    assert points(spans.within(a, 7, 30)) == covered(one) & set(range(7, 30))
    if one and covered(one):
        assert points(spans.gaps(a)) == set(range(min(covered(one)), max(covered(one)))) - covered(one)


@given(INTERVALS)
def test_spans_are_disjoint_and_in_order(intervals: Intervals) -> None:
    starts, ends = made(intervals)
    assert (starts < ends).all()
    assert (ends[:-1] < starts[1:]).all()


@given(INTERVALS, st.integers(0, 9))
def test_coarser_fills_gaps_up_to_a_length(intervals: Intervals, gap: int) -> None:
    fine = made(intervals)
    coarse = spans.coarser(fine, gap)
    assert points(coarse) >= points(fine)
    assert all(length > gap for length in np.subtract(*reversed(spans.gaps(coarse))))


def test_a_strip_has_few_spans() -> None:
    starts = np.arange(5000.0) * 10
    found = {"compute": (starts, starts + 3), "memory": (starts[:50] + 4, starts[:50] + 5), "communication": made([])}
    (one,) = make_strip({3: found})
    assert one["rank"] == 3
    assert 0 < len(one["spans"]) <= MOST_SPANS
    assert one["spans"][0][0] == 0
