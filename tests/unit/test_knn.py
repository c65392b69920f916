from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier

from zerofit.config.errors import UserError
from zerofit.measure import knn
from zerofit.measure.knn import knn_top1

CPU = torch.device("cpu")


@pytest.fixture
def blobs() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(0)
    centres = torch.randn(7, 12, generator=random)
    labels = torch.randint(7, (400,), generator=random)
    vectors = (centres[labels] + 1.5 * torch.randn(400, 12, generator=random)).bfloat16()
    return vectors[:300], labels[:300], vectors[300:], labels[300:]


@pytest.mark.parametrize("k", [1, 20, 1000])
def test_it_is_scikit_learns_weighted_vote(
    blobs: tuple[torch.Tensor, ...], k: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    train, labels, test, wanted = blobs
    judge = KNeighborsClassifier(min(k, 300), weights=lambda d: np.exp((1 - d) / 0.07), metric="cosine")
    judge.fit(train.double().numpy(), labels)
    right = float((judge.predict(test.double().numpy()) == wanted.numpy()).mean())
    assert 0.3 < right < 1
    assert knn_top1(train, labels, test, wanted, 7, CPU, k=k) == right
    monkeypatch.setattr(knn, "TRAIN", 37)  # in parts
    monkeypatch.setattr(knn, "TEST", 9)
    assert knn_top1(train, labels, test, wanted, 7, CPU, k=k) == right


def test_images_without_a_label_have_no_vote_and_are_not_asked(blobs: tuple[torch.Tensor, ...]) -> None:
    train, labels, test, wanted = blobs
    fewer = knn_top1(train[30:], labels[30:], test[10:], wanted[10:], 7, CPU)
    labels, wanted = labels.clone(), wanted.clone()
    labels[:30], wanted[:10] = -100, -100
    assert knn_top1(train, labels, test, wanted, 7, CPU) == fewer
    with pytest.raises(UserError, match="no sample could be evaluated"):
        knn_top1(train, labels, test, torch.full_like(wanted, -100), 7, CPU)
