"""Batches: what they hold, that workers change nothing, and how an unreadable image ends."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from zerofit.config.data import Data
from zerofit.config.errors import UserError
from zerofit.data.images import IGNORED, Images, describe, open_split
from zerofit.data.loader import Loader, close, eval_loader, train_loader
from zerofit.data.order import EvalOrder, TrainOrder
from zerofit.plan.spec import Batches

SIZES = Batches(
    ranks=2,
    micro=3,
    accumulation=2,
    global_batch=12,
    evaluate_micro=4,
    steps_per_epoch=2,
    total_steps=4,
    warmup_steps=0,
    checkpoint_steps=None,
    evaluate_steps=None,
)
SAMPLES = 26


@pytest.fixture
def path(tmp_path: Path) -> Path:
    for i in range(SAMPLES):
        folder = tmp_path / ("cat" if i < 13 else "dog")
        folder.mkdir(exist_ok=True)
        Image.new("RGB", (4, 4), (i, i, i)).save(folder / f"{i:02}.png")
    return tmp_path


def opened(path: Path, on_bad_item: str = "fail") -> Images:
    """Image i has level i."""
    data = Data(source="folder", path=str(path), validation=0.001, on_bad_item=on_bad_item)
    images = open_split(data, describe(data, 4, seed=0), "train", seed=0)
    assert len(images) == SAMPLES - 1
    return images


def order() -> TrainOrder:
    return TrainOrder(SAMPLES - 1, SIZES, seed=1, rank=1)


def epochs(loader: Loader, order: TrainOrder) -> list[dict[str, Tensor]]:
    """Epoch 0, then what follows step 1 of epoch 1."""
    batches = list(loader)
    order.seek(1, 1)
    assert len(loader) == 2
    return batches + list(loader)


def test_training_batches(path):
    images = opened(path)
    sequence = order()
    batches = epochs(train_loader(images, sequence, partners=True), sequence)
    assert len(batches) == 4 + 2
    for batch in batches:
        for kind in ("", "partner_"):
            levels = batch[f"{kind}images"]
            assert (levels.shape, levels.dtype) == ((3, 3, 4, 4), torch.uint8)
            assert batch[f"{kind}index"].tolist() == [images.items.tolist().index(i) for i in levels[:, 0, 0, 0]]
            assert batch[f"{kind}labels"].tolist() == [int(i >= 13) for i in levels[:, 0, 0, 0]]
    assert torch.cat([batch["epoch"] for batch in batches]).tolist() == [0] * 12 + [1] * 6
    assert "partner_images" not in next(iter(train_loader(images, order())))


def test_workers_change_nothing_and_end(path):
    images = opened(path)
    first, second = order(), order()
    before = set(multiprocessing.active_children())
    loader = train_loader(images, second, workers=2, partners=True)
    state = torch.get_rng_state()
    try:
        for alone, shared in zip(
            epochs(train_loader(images, first, partners=True), first), epochs(loader, second), strict=True
        ):
            assert alone.keys() == shared.keys()
            assert all(torch.equal(alone[name], shared[name]) for name in alone)
        assert len(set(multiprocessing.active_children()) - before) == 2
    finally:
        close(loader)
    assert set(multiprocessing.active_children()) <= before
    assert torch.equal(torch.get_rng_state(), state)


def test_workers_share_images_in_memory():
    data = Data(source="digits", limit=40)
    facts = describe(data, None, seed=0)
    images = open_split(data, facts, "train", seed=0)
    batches = list(eval_loader(images, EvalOrder(40, 20, 0, 1), workers=1))
    assert torch.equal(
        torch.cat([batch["images"] for batch in batches]), torch.stack([image for image, _ in images_of(images)])
    )


def images_of(images: Images) -> list[tuple[Tensor, int]]:
    return [images[i] for i in range(len(images))]


def test_evaluation_batches(path):
    images = opened(path)
    seen = []
    for rank in range(2):
        batches = list(eval_loader(images, EvalOrder(len(images), 4, rank, 2)))
        assert [batch["images"].shape for batch in batches] == [(4, 3, 4, 4)] * 4
        for batch in batches:
            assert (batch["valid"].dtype, batch["labels"].dtype) == (torch.bool, torch.int64)
            seen += batch["index"][batch["valid"]].tolist()
    assert sorted(seen) == list(range(len(images)))


@pytest.mark.parametrize("workers", [0, 1])
def test_an_unreadable_image_is_one_line(path, workers):
    (path / "cat" / "03.png").write_bytes(b"nonsense")
    (path / "cat" / "04.png").write_bytes(b"nonsense")  # one of the two is not held out
    images = opened(path)
    loader = eval_loader(images, EvalOrder(len(images), 5, 0, 1), workers=workers)
    with pytest.raises(UserError) as error:
        list(loader)
    assert str(error.value).startswith(str(path / "cat"))
    assert "\n" not in str(error.value)


def test_an_unreadable_image_left_out(path):
    images = opened(path)
    place = images.items.tolist().index(3)
    (path / "cat" / "03.png").write_bytes(b"nonsense")
    images = opened(path, on_bad_item="skip")
    (batch,) = eval_loader(images, EvalOrder(len(images), len(images), 0, 1))
    assert (batch["labels"] == IGNORED).nonzero().flatten().tolist() == [place]
    assert batch["images"][place].sum() == 0
    assert batch["valid"].all()
