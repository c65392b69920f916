"""Decoding, the split rules, held-out samples, and images that cannot be read."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from zerofit.config.data import Data
from zerofit.config.errors import UserError
from zerofit.data.decode import decode, square
from zerofit.data.images import IGNORED, describe, draw, open_for_evaluation, open_split

ORANGE = (200, 100, 50)


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def fill(folder: Path, count: int, size: tuple[int, int] = (8, 8)) -> None:
    folder.mkdir(parents=True)
    for i in range(count):
        Image.new("RGB", size, (i, 2 * i, 0)).save(folder / f"{i:02}.png")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """20 cats and 10 dogs to train on, 3 and 2 to test on."""
    for split, cats, dogs in (("train", 20, 10), ("test", 3, 2)):
        fill(tmp_path / split / "cat", cats)
        fill(tmp_path / split / "dog", dogs)
    return tmp_path


def folder(path: Path, **fields: object) -> Data:
    return Data(source="folder", path=str(path), **fields)


def pixel(image: Image.Image) -> tuple[int, ...]:
    return image.getpixel((0, 0))


@pytest.mark.parametrize(
    ("mode", "colour", "expected"),
    [
        ("L", 77, (77, 77, 77)),
        ("1", 1, (255, 255, 255)),
        ("LA", (77, 128), (77, 77, 77)),
        ("RGBA", (*ORANGE, 0), ORANGE),
        ("I;16", 77 * 257, (77, 77, 77)),
    ],
)
def test_every_mode_becomes_rgb(mode, colour, expected):
    image = decode(encoded(Image.new(mode, (4, 4), colour)))
    assert (image.mode, pixel(image)) == ("RGB", expected)


def test_palettes_cmyk_and_floats():
    palette = Image.new("RGB", (4, 4), ORANGE).convert("P", palette=Image.Palette.ADAPTIVE, colors=4)
    assert pixel(decode(encoded(palette, transparency=b"\x80\x00"))) == ORANGE
    cmyk = decode(encoded(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG"))
    assert np.abs(np.array(pixel(cmyk)) - (255, 0, 0)).max() < 4
    with pytest.raises(ValueError, match="floating-point"):
        decode(encoded(Image.new("F", (4, 4), 0.5), "TIFF"))


def test_photos_are_turned_upright():
    image = Image.new("RGB", (4, 2), (0, 0, 0))
    image.putpixel((0, 0), ORANGE)
    exif = Image.Exif()
    exif[0x0112] = 6  # turn clockwise
    upright = decode(encoded(image, exif=exif))
    assert upright.size == (2, 4)
    assert upright.getpixel((1, 0)) == ORANGE


def test_square_is_the_middle_resized():
    image = Image.new("RGB", (12, 4), (0, 0, 0))
    image.paste(ORANGE, (4, 0, 8, 4))
    for size in (4, 2, 9):
        tensor = square(image, size)
        assert (tensor.dtype, tensor.shape) == (torch.uint8, (3, size, size))
        whole = image.resize((3 * size, size), Image.Resampling.BICUBIC).crop((size, 0, 2 * size, size))
        assert (tensor.int() - torch.from_numpy(np.array(whole)).permute(2, 0, 1).int()).abs().max() <= 1
    assert (square(image, 4) == torch.tensor(ORANGE, dtype=torch.uint8)[:, None, None]).all()


def test_described_and_opened(tree):
    data = folder(tree)
    facts = describe(data, None, seed=0)
    assert facts.classes == ("cat", "dog")
    assert (facts.train, facts.validation, facts.test, facts.validation_from) == (30, 5, 5, "test")
    assert facts.image_size == 8
    images = open_split(data, facts, "train", seed=0)
    image, label = images[20]
    assert (image.dtype, image.shape, label) == (torch.uint8, (3, 8, 8), 1)
    assert images.labels.tolist() == [0] * 20 + [1] * 10
    assert images.name(20) == str(tree / "train/dog/00.png")
    assert len(open_split(data, facts, "validation", seed=0)) == 5
    resized = describe(data, 5, seed=0)
    assert open_split(data, resized, "test", seed=0)[0][0].shape == (3, 5, 5)


def test_a_split_of_its_own_comes_before_a_fraction(tree):
    fill(tree / "val" / "dog", 4)
    facts = describe(folder(tree, validation=0.5), None, seed=0)
    assert (facts.train, facts.validation, facts.test, facts.validation_from) == (30, 4, 5, "split")


def test_held_out_samples_keep_the_shares_and_leave_train(tree):
    data = folder(tree, validation=0.2)
    facts = describe(data, None, seed=3)
    assert (facts.train, facts.validation, facts.test, facts.validation_from) == (24, 6, 5, "train")
    train, held = (open_split(data, facts, split, seed=3) for split in ("train", "validation"))
    assert sorted([*train.items, *held.items]) == list(range(30))
    assert np.bincount(held.labels).tolist() == [4, 2]
    assert held.items.tolist() == open_split(data, facts, "validation", seed=3).items.tolist()
    assert held.items.tolist() != open_split(data, facts, "validation", seed=4).items.tolist()


def test_limit_draws_from_what_is_not_held_out(tree):
    data = folder(tree, validation=0.2, limit=9)
    facts = describe(data, None, seed=3)
    train, held = (open_split(data, facts, split, seed=3) for split in ("train", "validation"))
    assert (facts.train, facts.validation) == (9, 6)
    assert not set(train.items) & set(held.items)
    assert np.bincount(train.labels).tolist() == [6, 3]
    assert describe(folder(tree, limit=1000), None, seed=0).train == 30


def test_draw_is_within_one_of_each_share():
    labels = np.random.default_rng(0).integers(0, 7, size=500)
    drawn = draw(labels, 60, seed=1, purpose=1)
    assert len(set(drawn.tolist())) == 60
    assert np.abs(np.bincount(labels[drawn], minlength=7) - np.bincount(labels) * 60 / 500).max() <= 1


def test_nothing_to_validate_on(tmp_path):
    fill(tmp_path / "cat", 3)
    fill(tmp_path / "dog", 3)
    with pytest.raises(UserError, match=r"data\.validation=0\.1"):
        describe(folder(tmp_path), None, seed=0)
    facts = describe(folder(tmp_path, validation=0.3), None, seed=0)
    assert (facts.train, facts.validation, facts.test) == (4, 2, 0)
    with pytest.raises(UserError, match="leaves none of the 6"):
        describe(folder(tmp_path, validation=0.99), None, seed=0)


def test_evaluation_numbers_labels_as_the_run_does(tree):
    run = ("emu", "dog", "cat")
    data = folder(tree, classes=7, limit=2, validation=0.5)
    split, images = open_for_evaluation(data, run, 4)
    assert (split, images.labels.tolist()) == ("test", [2, 2, 2, 1, 1])
    image, label = images[4]
    assert (image.shape, label) == ((3, 4, 4), 1)
    with pytest.raises(
        UserError, match=r"has images of class cat \(split test\), which is none of the run's 2 \(bee, dog"
    ):
        open_for_evaluation(data, ("bee", "dog"), 4)


def test_evaluation_takes_test_then_validation_then_all_of_train(tmp_path):
    for made, (name, count) in enumerate((("train", 3), ("val", 2), ("test", 1))):
        fill(tmp_path / name / "cat", count)
        split, images = open_for_evaluation(folder(tmp_path, limit=1, validation=0.4), ("cat",), 8)
        assert (split, len(images)) == (("train", "validation", "test")[made], count)
    for name in ("val", "test"):
        fill(tmp_path / "other" / name / name / "cat", 2)
        alone = folder(tmp_path / "other" / name)
        assert len(open_for_evaluation(alone, ("cat",), 8)[1]) == 2
        with pytest.raises(UserError, match="has no split train"):
            describe(alone, None, seed=0)
    fill(tmp_path / "plain" / "cat", 3)
    split, images = open_for_evaluation(folder(tmp_path / "plain", limit=1, validation=0.4), ("dog", "cat"), 8)
    assert (split, images.labels.tolist()) == ("train", [1, 1, 1])


def test_contradictions(tree):
    with pytest.raises(UserError, match=r"data\.classes: the recipe expects 10 classes, but .* holds 2 \(cat, dog\)"):
        describe(folder(tree, classes=10), None, seed=0)
    data = folder(tree, classes=2)
    facts = describe(data, None, seed=0)
    fill(tree / "train" / "emu", 1)
    with pytest.raises(UserError, match=r"holds 3 classes \(cat, dog, emu\), not the 2"):
        open_split(data, facts, "train", seed=0)
    with pytest.raises(UserError, match="holds 31 train samples, not the 30"):
        open_split(data, facts.model_copy(update={"classes": ("cat", "dog", "emu")}), "train", seed=0)


@pytest.mark.parametrize("content", [b"", b"not an image", encoded(Image.new("RGB", (64, 64), ORANGE), "JPEG")[:-200]])
def test_unreadable_images(tree, content):
    broken = tree / "train" / "cat" / "00.png"
    broken.write_bytes(content)
    data = folder(tree)
    with pytest.raises(
        UserError, match=r"cat/00\.png: not a readable image \(.*\); .* data\.on_bad_item=skip$"
    ) as error:
        describe(data, None, seed=0)
    assert "\n" not in str(error.value)
    facts = describe(data, 8, seed=0)  # an image size that is given needs no image
    with pytest.raises(UserError, match=r"cat/00\.png"):
        open_split(data, facts, "train", seed=0)[0]
    skipping = folder(tree, on_bad_item="skip")
    facts = describe(skipping, None, seed=0)
    images = open_split(skipping, facts, "train", seed=0)
    image, label = images[0]
    assert (image.sum().item(), label) == (0, IGNORED)
    assert images[1][1] == 0


def test_digits():
    data = Data(source="digits")
    facts = describe(data, None, seed=0)
    assert (len(facts.classes), facts.train, facts.test, facts.image_size) == (10, 1437, 360, 8)
    images = open_split(data, facts, "train", seed=0)
    image, label = images[0]
    assert (image.shape, image.dtype) == ((3, 8, 8), torch.uint8)
    assert torch.stack([images[i][0] for i in range(50)]).max() == 255
    test = open_split(data, facts, "test", seed=0)
    assert np.bincount(test.labels).min() >= 34
    assert label == images.labels[0]
