"""The real image sets beside the repository: every image decodes, and the counts are right."""

from __future__ import annotations

import gzip
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from zerofit.config.data import Data
from zerofit.data.decode import decode
from zerofit.data.images import Images, describe, open_split
from zerofit.data.loader import eval_loader
from zerofit.data.order import EvalOrder

IMAGES = Path(__file__).parents[2].parent / "shared" / "data" / "images"
pytestmark = [pytest.mark.real, pytest.mark.skipif(not IMAGES.is_dir(), reason="no real data beside the repository")]


def decoded(images: Images) -> torch.Tensor:
    """All images, through the loader."""
    loader = eval_loader(images, EvalOrder(len(images), 100, 0, 1))
    return torch.cat([batch["images"][batch["valid"]] for batch in loader])


def test_cifar10_archives():
    data = Data(source="folder", path=str(IMAGES / "cifar10"), classes=10)
    facts = describe(data, None, seed=0)
    assert facts.classes[:3] == ("airplane", "automobile", "bird")
    assert (facts.train, facts.validation, facts.test, facts.validation_from) == (10000, 4000, 4000, "test")
    assert facts.image_size == 32
    train, test = (open_split(data, facts, split, seed=0) for split in ("train", "test"))
    assert np.bincount(train.labels).tolist() == [1000] * 10
    assert np.bincount(test.labels).tolist() == [400] * 10
    pixels = decoded(test).float() / 255
    assert pixels.shape == (4000, 3, 32, 32)
    # The published means of CIFAR-10, of another sample of it.
    assert pixels.mean(dim=(0, 2, 3)).tolist() == pytest.approx([0.491, 0.482, 0.447], abs=0.01)
    assert train.name(0).endswith("cifar10_train_10000.zip/train/airplane/0000.jpg")


def test_tiny_imagenet_archives_with_grey_images():
    path = IMAGES / "tiny_imagenet"
    data = Data(source="folder", path=str(path), limit=2000)
    facts = describe(data, None, seed=0)
    assert (len(facts.classes), facts.train, facts.validation, facts.test) == (100, 2000, 1000, 0)
    assert (facts.validation_from, facts.image_size) == ("split", 64)
    assert facts.classes == tuple(line.split("\t")[1] for line in (path / "classes.tsv").read_text().splitlines())
    train = open_split(data, facts, "train", seed=0)
    assert np.bincount(train.labels).tolist() == [20] * 100
    pixels = decoded(open_split(data, facts, "validation", seed=0))
    assert pixels.shape == (1000, 3, 64, 64)
    grey = (pixels == pixels[:, :1]).all(dim=(1, 2, 3)).float().mean()
    assert 0.005 < float(grey) < 0.05


def test_photos_of_any_shape():
    data = Data(source="folder", path=str(IMAGES / "hymenoptera"))
    facts = describe(data, 96, seed=0)
    assert (facts.classes, facts.train, facts.validation, facts.test) == (("ants", "bees"), 24, 12, 0)
    images = open_split(data, facts, "train", seed=0)
    assert decoded(images).shape == (24, 3, 96, 96)
    photo = decode(images.split.trees[0].read("train/ants/0013035.jpg"))  # type: ignore[attr-defined]
    width, height = photo.size
    assert width != height
    scale = 96 / min(width, height)
    whole = photo.resize((round(width * scale), round(height * scale)), Image.Resampling.BICUBIC)
    left, top = (whole.width - 96) // 2, (whole.height - 96) // 2
    expected = np.asarray(whole.crop((left, top, left + 96, top + 96))).astype(int)
    found = images[0][0].permute(1, 2, 0).numpy().astype(int)
    assert np.abs(found - expected).mean() < 8  # half a pixel of offset at most


def test_mnist(tmp_path):
    """The test files stand in for the training files, which are not there."""
    for kind in ("images-idx3-ubyte", "labels-idx1-ubyte"):
        packed = IMAGES / "mnist" / f"t10k-{kind}.gz"
        shutil.copy(packed, tmp_path)
        (tmp_path / f"train-{kind}").write_bytes(gzip.decompress(packed.read_bytes()))
    data = Data(source="mnist", path=str(tmp_path), classes=10, validation=0.1)
    facts = describe(data, None, seed=0)
    assert (facts.train, facts.validation, facts.test, facts.image_size) == (9000, 1000, 10000, 28)
    test = open_split(data, facts, "test", seed=0)
    assert [test[i][1] for i in range(5)] == [7, 2, 1, 0, 4]
    pixels = decoded(test)
    assert (pixels[:, 0] == pixels[:, 2]).all()
    assert float(pixels.float().mean() / 255) == pytest.approx(0.1325, abs=1e-4)
