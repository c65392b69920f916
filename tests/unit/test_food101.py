"""Food-101 in the layout of its download, and what is said about a damaged one."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import Image

from zerofit.config.data import Data
from zerofit.config.errors import UserError
from zerofit.data.images import describe, open_split

TRAIN = ("baklava/2", "apple_pie/10", "apple_pie/9")
TEST = ("baklava/7",)


def jpeg(level: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 6), (level, level, level)).save(buffer, "JPEG")
    return buffer.getvalue()


def lines(*names: str) -> bytes:
    return ("\n".join(names) + "\n").encode()


FILES = {
    "meta/classes.txt": lines("apple_pie", "baklava"),
    "meta/labels.txt": lines("Apple pie", "Baklava"),
    "meta/train.txt": lines(*TRAIN),
    "meta/test.txt": lines(*TEST),
    "meta/train.json": b"{}",
    "license_agreement.txt": b"",
    **{f"images/{name}.jpg": jpeg(20 * int(name.partition("/")[2])) for name in TRAIN + TEST},
}


def write(root: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def test_the_directory_or_the_one_around_it(tmp_path: Path) -> None:
    root = write(tmp_path / "food-101", FILES)
    for path in (root, tmp_path):
        data = Data(source="food101", path=str(path), classes=2)
        facts = describe(data, None, seed=0)
        assert facts.classes == ("apple_pie", "baklava")
        assert (facts.train, facts.test, facts.validation_from, facts.image_size) == (3, 1, "test", 8)
        train = open_split(data, facts.model_copy(update={"image_size": 6}), "train", seed=0)
        found = [(round(int(image.float().mean()), -1), label) for image, label in (train[i] for i in range(3))]
        assert found == [(40, 1), (200, 0), (180, 0)]  # in the order of train.txt
        assert train.name(0) == str(root / "images/baklava/2.jpg")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"meta/test.txt": None}, r"food-101 lacks meta/test\.txt"),
        ({"meta/classes.txt": None}, r"food-101 lacks meta/classes\.txt"),
        ({"meta/classes.txt": b""}, r"classes\.txt names no classes"),
        ({"meta/classes.txt": b"\xff\xfe"}, r"classes\.txt is not text"),
        ({"meta/classes.txt": lines("apple_pie")}, r"train\.txt: baklava/2 is of class baklava, which classes\.txt"),
        ({"meta/classes.txt": lines("apple_pie", "baklava", "emu")}, r"train\.txt names no image of emu"),
        ({"meta/train.txt": lines("apple_pie/9", "baklava")}, r"train\.txt: 'baklava' is not <class>/<id>"),
        ({"images/baklava/2.jpg": None}, r"food-101 lacks images/baklava/2\.jpg, which meta/train\.txt names"),
        ({name: None for name in FILES if name.startswith("images")}, r"lacks images/baklava/2\.jpg, .*9\.jpg, which"),
    ],
)
def test_a_damaged_one_is_named_in_one_line(tmp_path: Path, changes: dict[str, bytes | None], message: str) -> None:
    kept = {name: content for name, content in (FILES | changes).items() if content is not None}
    data = Data(source="food101", path=str(write(tmp_path / "food-101", kept)))
    with pytest.raises(UserError, match=message) as error:
        describe(data, None, seed=0)
    assert str(error.value).startswith("data.path: ")
    assert "\n" not in str(error.value)


def test_an_archive_is_to_be_unpacked(tmp_path: Path) -> None:
    archive = tmp_path / "food-101.tar.gz"
    archive.write_bytes(b"")
    with pytest.raises(UserError, match=r"food-101\.tar\.gz is an archive .* unpack it"):
        describe(Data(source="food101", path=str(archive)), None, seed=0)
    with pytest.raises(UserError, match=r"neither meta nor food-101/meta; unpack food-101\.tar\.gz there"):
        describe(Data(source="food101", path=str(tmp_path)), None, seed=0)
