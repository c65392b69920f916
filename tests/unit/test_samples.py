from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from zerofit.measure.samples import SHOWN, Sample, Samples, drawn


@pytest.fixture(autouse=True)
def alone(tmp_path: Path) -> Iterator[None]:
    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'meet'}", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def chosen(logits: Tensor, labels: Tensor, order: Tensor, size: int, valid: Tensor | None = None) -> list[Sample]:
    samples = Samples(logits.shape[1], seed=3)
    for part in order.split(size):
        samples.add(part, logits[part], labels[part], None if valid is None else valid[part])
    return samples.chosen()


def test_the_same_samples_are_shown_whatever_the_order_and_the_batches() -> None:
    generator = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(500, 7, generator=generator), torch.randint(7, (500,), generator=generator)
    one = chosen(logits, labels, torch.arange(500), 500)
    assert one == chosen(logits, labels, torch.randperm(500, generator=generator), 13)
    assert [sample.predicted == sample.label for sample in one] == [False] * 8 + [True] * 8
    for sample in one:
        assert sample.label == labels[sample.index]
        shares = logits[sample.index].double().softmax(0)
        assert [number for number, _ in sample.top] == shares.argsort(descending=True)[:5].tolist()
        assert sample.top[0][1] == pytest.approx(float(shares.max()))


@pytest.mark.parametrize(("wrong", "shown"), [(0, 0), (3, 3), (8, 8), (400, 8)])
def test_half_are_wrong_where_there_are_as_many(wrong: int, shown: int) -> None:
    labels = torch.zeros(500, dtype=torch.int64)
    logits = torch.zeros(500, 2)
    logits[torch.arange(500), (torch.arange(500) < wrong).long()] = 1.0
    one = chosen(logits, labels, torch.arange(500), 50)
    assert len(one) == SHOWN
    assert sum(sample.predicted != sample.label for sample in one) == shown


def test_what_does_not_count_is_not_shown() -> None:
    labels = torch.tensor([-100, 0, 1, 1])
    valid = torch.tensor([True, True, True, False])
    one = chosen(torch.eye(2).repeat(2, 1), labels, torch.arange(4), 2, valid)
    assert sorted(sample.index for sample in one) == [1, 2]


def test_the_draw_is_no_order_of_the_data_and_never_twice_the_same() -> None:
    draws = drawn(torch.arange(100_000), seed=1)
    assert draws.unique().numel() == 100_000
    assert 0 <= int(draws.min()) <= int(draws.max()) < 2**62
    first = draws.argsort()[:1000]
    assert 45_000 < float(first.float().mean()) < 55_000
    assert json.dumps(first[:20].tolist()) != json.dumps(drawn(torch.arange(100_000), seed=2).argsort()[:20].tolist())
