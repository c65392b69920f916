"""pass@k and maj@k against every choice of k samples; intervals against scipy's own and against counting."""

from __future__ import annotations

from collections import Counter
from itertools import combinations
from math import comb

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zerofit.measure.pass_at_k import compare, maj_at_k, mean_over_problems, one_each, pass_at_k


@given(st.lists(st.booleans(), min_size=1, max_size=9), st.data())
def test_pass_at_k_is_the_mean_over_all_choices(samples: list[bool], data: st.DataObject) -> None:
    k = data.draw(st.integers(1, len(samples)))
    choices = [any(choice) for choice in combinations(samples, k)]
    assert pass_at_k(len(samples), sum(samples), k) == pytest.approx(sum(choices) / len(choices), abs=1e-12)


def test_pass_at_k_of_many_samples() -> None:
    assert pass_at_k(10_000, 0, 100) == 0
    assert pass_at_k(10_000, 9_901, 100) == 1
    assert pass_at_k(10_000, 1, 1) == 1e-4
    assert 0 < pass_at_k(10_000, 1, 5_000) == 0.5


def voted(choice: tuple[str, ...]) -> float:
    """The chance that the vote of these samples is `right`; `-` gives no answer."""
    votes = Counter(answer for answer in choice if answer != "-")
    most = [answer for answer, count in votes.items() if count == max(votes.values())]
    return 1 / len(most) if "right" in most else 0.0


@given(st.lists(st.sampled_from(["right", "a", "b", "c", "-"]), min_size=1, max_size=9), st.data())
def test_maj_at_k_is_the_mean_over_all_choices(samples: list[str], data: st.DataObject) -> None:
    k = data.draw(st.integers(1, len(samples)))
    choices = [voted(choice) for choice in combinations(samples, k)]
    counts = Counter(samples)
    found = maj_at_k(counts["right"], [counts[name] for name in "abc"], counts["-"], k)
    assert found == pytest.approx(sum(choices) / len(choices), abs=1e-12)
    if k == 1:
        assert found == pytest.approx(pass_at_k(len(samples), counts["right"], 1))


def test_maj_at_k_of_many_samples() -> None:
    assert maj_at_k(40, [10] * 3 + [1] * 50, 44, 144) == 1
    assert maj_at_k(30, [30], 4, 64) == 0.5


def test_wilsons_interval() -> None:
    """Against the formula: (p + z^2/2n -+ z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n)."""
    estimate = one_each(72, 100)
    z, p, n = 1.959963984540054, 0.72, 100
    middle, half = p + z * z / (2 * n), z * (p * (1 - p) / n + z * z / (4 * n * n)) ** 0.5
    assert estimate.value == 0.72
    assert (estimate.low, estimate.high) == pytest.approx(
        ((middle - half) / (1 + z * z / n), (middle + half) / (1 + z * z / n))
    )


def test_an_interval_over_problems() -> None:
    """Eight alike samples of each problem are worth one: the interval is that of the problems, not of the samples."""
    solved = [1.0] * 60 + [0.0] * 40
    estimate, wilson = mean_over_problems(solved), one_each(60, 100)
    assert estimate.value == 0.6
    assert (estimate.low, estimate.high) == pytest.approx((wilson.low, wilson.high), abs=0.02)
    assert estimate == mean_over_problems(solved)
    assert mean_over_problems([1.0] * 30) == one_each(30, 30)
    assert mean_over_problems([0.0]) == one_each(0, 1)
    assert mean_over_problems([0.5, 0.5]).value == 0.5


@given(st.lists(st.tuples(st.booleans(), st.booleans()), max_size=14))
def test_mcnemars_test_counts_splits_as_uneven(pairs: list[tuple[bool, bool]]) -> None:
    found = compare([a for a, _ in pairs], [b for _, b in pairs])
    one, other = pairs.count((True, False)), pairs.count((False, True))
    assert (found.first_only, found.second_only) == (one, other)
    n = one + other
    as_uneven = sum(comb(n, i) for i in range(n + 1) if abs(2 * i - n) >= abs(one - other))
    assert found.p_value == pytest.approx(as_uneven / 2**n)
