"""How often problems are solved within k samples, how sure that is, and whether one model does it more often.

pass@k: at least one of k samples is right (Chen et al. 2021, arXiv:2107.03374, equation 1). maj@k: the answer most of
k samples give is right (Wang et al. 2022, arXiv:2203.11171). Both are means over every choice of k of a problem's
samples. Samples of one problem are alike, so intervals are over problems.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import comb
from typing import Any

RESAMPLES = 2000


@dataclass(frozen=True)
class Estimate:
    """A fraction and its confidence interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Comparison:
    """Two evaluations of the same problems, a sample each."""

    first_only: int
    """Problems that the first alone solves."""
    second_only: int
    """Problems that the second alone solves."""
    p_value: float
    """Of McNemar's exact test: how often a split as uneven comes about where neither is better."""


def pass_at_k(samples: int, correct: int, k: int) -> float:
    """The share of all choices of k of the samples in which at least one is correct."""
    assert 0 <= correct <= samples, (correct, samples)
    assert 1 <= k <= samples, (k, samples)
    choices = comb(samples, k)
    return (choices - comb(samples - correct, k)) / choices


def maj_at_k(correct: int, wrong: Sequence[int], silent: int, k: int) -> float:
    """The share of all choices of k of the samples in which the correct answer has the most votes.

    `correct` samples give the right answer, wrong[i] samples the i-th wrong one, and `silent` samples none, which is no
    vote. Among t answers with the most votes each is taken with probability 1 / t.
    """
    samples = correct + sum(wrong) + silent
    assert min(correct, silent, *wrong, 0) == 0, (correct, wrong, silent)
    assert 1 <= k <= samples, (k, samples)
    choices = comb(samples, k)
    total = 0.0
    for votes in range(max(1, k - (samples - correct)), min(correct, k) + 1):
        others = k - votes
        # Ways to draw the others, by how many are drawn and how many wrong answers tie.
        left = sum(wrong)
        ways = {(drawn, 0): comb(silent, drawn) for drawn in range(max(0, others - left), min(silent, others) + 1)}
        for group in wrong:
            left -= group
            after: dict[tuple[int, int], int] = defaultdict(int)
            for (drawn, ties), count in ways.items():
                for more in range(max(0, others - drawn - left), min(group, votes, others - drawn) + 1):
                    after[drawn + more, ties + (more == votes)] += count * comb(group, more)
            ways = after
        for (_, ties), count in ways.items():
            total += comb(correct, votes) * count / choices / (ties + 1)
    return min(total, 1.0)  # the sum may be an ulp above


def one_each(correct: int, problems: int, confidence: float = 0.95) -> Estimate:
    """pass@1 of one sample a problem, with Wilson's interval."""
    from scipy.stats import binomtest  # type: ignore[import-untyped]

    interval = binomtest(correct, problems).proportion_ci(confidence, method="wilson")
    return Estimate(correct / problems, float(interval.low), float(interval.high))


def mean_over_problems(values: Sequence[float], confidence: float = 0.95, seed: int = 0) -> Estimate:
    """The mean of a figure of each problem in 0..1, with a percentile bootstrap over problems (the same each time).

    Where all problems are solved always, or never, resampling shows no spread, and Wilson's interval is given.
    """
    import numpy as np

    assert values
    if set(values) <= {0.0} or set(values) <= {1.0}:
        return one_each(int(sum(values)), len(values), confidence)
    return resampled(values, np.mean, confidence, seed)


def resampled(values: Sequence[float], statistic: Callable[..., Any], confidence: float, seed: int) -> Estimate:
    """A statistic of numpy's of a figure of each problem, with a percentile bootstrap over problems.

    Values that are all the same have no spread.
    """
    import numpy as np
    from scipy.stats import bootstrap

    if len(set(values)) == 1:
        return Estimate(values[0], values[0], values[0])
    result = bootstrap(
        (np.asarray(values, dtype=np.float64),),
        statistic,
        n_resamples=RESAMPLES,
        batch=500,
        confidence_level=confidence,
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    interval = result.confidence_interval
    return Estimate(float(statistic(values)), float(interval.low), float(interval.high))


def compare(first: Sequence[bool], second: Sequence[bool]) -> Comparison:
    """McNemar's exact test of two evaluations, problem by problem in the same order."""
    from scipy.stats import binomtest

    assert len(first) == len(second), (len(first), len(second))
    pairs = list(zip(first, second, strict=True))
    one, other = sum(a and not b for a, b in pairs), sum(b and not a for a, b in pairs)
    p_value = float(binomtest(one, one + other, 0.5).pvalue) if one + other else 1.0
    return Comparison(one, other, p_value)
