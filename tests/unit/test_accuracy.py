from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, confusion_matrix, log_loss, top_k_accuracy_score

from zerofit.config.errors import UserError
from zerofit.measure.accuracy import Tally


@given(
    classes=st.integers(2, 12),
    samples=st.integers(1, 60),
    parts=st.integers(1, 4),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    seed=st.integers(0, 2**31),
)
def test_figures_are_those_of_scikit_learn(
    classes: int, samples: int, parts: int, dtype: torch.dtype, seed: int
) -> None:
    random = torch.Generator().manual_seed(seed)
    logits = torch.randn(samples, classes, generator=random, dtype=dtype)
    labels = torch.randint(classes, (samples,), generator=random)
    state = torch.zeros(2 + classes**2, dtype=torch.float64)
    for rank in range(parts):
        tally = Tally(classes)
        tally.add(logits[rank::parts], labels[rank::parts])
        state += tally.state()
    figures = Tally.result_of(state, classes)

    scores, known = torch.softmax(logits.double(), dim=1).numpy(), np.arange(classes)
    assert figures["samples"] == samples
    assert figures["top1"] == accuracy_score(labels, scores.argmax(1))
    k = min(5, classes)
    expected = 1.0 if k == classes else top_k_accuracy_score(labels, scores, k=k, labels=known) if classes > 2 else 1.0
    assert figures["top5"] == pytest.approx(expected, abs=1e-12)
    assert figures["loss"] == pytest.approx(log_loss(labels, scores, labels=known), rel=1e-9)
    np.testing.assert_array_equal(figures["confusion"], confusion_matrix(labels, scores.argmax(1), labels=known))


def test_padding_and_unreadable_samples_do_not_count_even_where_their_logits_are_not_numbers() -> None:
    logits = torch.tensor([[3.0, 0.0, 1.0], [0.0, 2.0, 0.0], [float("nan")] * 3, [float("inf")] * 3])
    labels = torch.tensor([0, 0, 1, -100])
    tally, alone = Tally(3), Tally(3)
    tally.add(logits, labels, torch.tensor([True, True, False, True]))
    alone.add(logits[:2], labels[:2])
    assert tally.result() == alone.result()
    assert tally.result()["confusion"] == [[1, 1, 0], [0, 0, 0], [0, 0, 0]]


def test_half_precision_logits_are_summed_in_float64() -> None:
    tally, logits = Tally(10), torch.randn(4096, 10, dtype=torch.bfloat16)
    labels = torch.arange(4096) % 10
    for part in range(0, 4096, 64):
        tally.add(logits[part : part + 64], labels[part : part + 64])
    expected = torch.nn.functional.cross_entropy(logits.double(), labels).item()
    assert tally.result()["loss"] == pytest.approx(expected, rel=1e-12)


def test_nothing_counted_is_said() -> None:
    with pytest.raises(UserError, match="no sample could be evaluated"):
        Tally(3).result()
