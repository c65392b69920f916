from __future__ import annotations

import os
import resource
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from zerofit.config.data import Data
from zerofit.config.errors import UserError
from zerofit.data.cache import FeatureCache, Part, default_root
from zerofit.data.contents import Pixels
from zerofit.data.fingerprint import fingerprint
from zerofit.data.images import SOURCES, Images
from zerofit.data.shares import ChunkOrder, share

TRAIN, TEST = Part("train", 2, 50, 6), Part("test", 1, 40, 6)
FACTS = {"weights": "a", "preprocessing": {"mean": (0.5, 0.5, 0.5)}, "data": {"train": "x", "test": "y"}}


def content(part: Part, chunk: int) -> tuple[torch.Tensor, torch.Tensor]:
    rows = torch.tensor(part.span(chunk))
    return (rows[:, None] + torch.arange(part.width) / 8).bfloat16(), rows % part.images


def fill(cache: FeatureCache) -> None:
    for part in cache.parts:
        for chunk in cache.missing(part):
            cache.write(part, chunk, *content(part, chunk))


def made(root: Path, **facts: Any) -> FeatureCache:
    cache = FeatureCache(root, FACTS | facts, (TRAIN, TEST))
    cache.create()
    return cache


def test_what_is_written_is_found_again_by_the_same_facts_alone(tmp_path: Path) -> None:
    cache = made(tmp_path)
    assert [len(cache.missing(part)) for part in cache.parts] == [4, 2]
    fill(cache)

    again = made(tmp_path)
    assert again.directory == cache.directory
    assert [again.missing(part) for part in again.parts] == [[], []]
    vectors = again.vectors(TRAIN)
    assert vectors.shape == (2, 50, 6)
    assert torch.equal(vectors[1, 7], (57 + torch.arange(6) / 8).bfloat16())
    assert again.labels(TEST).tolist() == list(range(40))
    for name, other in (("weights", "b"), ("preprocessing", {"mean": (0.5, 0.5, 0.4)}), ("data", {"train": "z"})):
        assert made(tmp_path, **{name: other}).missing(TRAIN) != []


def test_an_image_that_was_unreadable_in_any_view_has_no_label(tmp_path: Path) -> None:
    cache = made(tmp_path)
    for chunk in cache.missing(TRAIN):
        vectors, labels = content(TRAIN, chunk)
        cache.write(TRAIN, chunk, vectors, torch.where(torch.tensor(TRAIN.span(chunk)) == 57, -100, labels))
    assert [i for i, label in enumerate(cache.labels(TRAIN).tolist()) if label != i] == [7]
    assert cache.labels(TRAIN)[7] == -100


def test_a_directory_that_is_not_what_its_name_says_is_refused_in_one_line(tmp_path: Path) -> None:
    cache, other = made(tmp_path), made(tmp_path, weights="b")
    shutil.copy(other.directory / "meta.json", cache.directory)
    with pytest.raises(UserError, match=r"it is of other weights than its name says.*remove that directory"):
        made(tmp_path)

    with (other.directory / "train.bf16").open("ab") as file:
        file.truncate(7)
    with pytest.raises(UserError, match=rf"{other.directory} is damaged \(train.bf16 has 7 bytes, not 1200\)"):
        made(tmp_path, weights="b")
    (other.directory / "train.bf16").unlink()
    with pytest.raises(UserError, match=r"train.bf16 is missing"):
        made(tmp_path, weights="b")
    (other.directory / "meta.json").write_text("{")
    with pytest.raises(UserError, match=r"its meta.json cannot be read"):
        made(tmp_path, weights="b")


def test_a_drive_without_room_is_told_before_anything_is_written(tmp_path: Path) -> None:
    huge = FeatureCache(tmp_path, FACTS, (Part("train", 1024, 2**40, 4096),))
    with pytest.raises(UserError, match=r"the features need [\d.]+ GiB more in .*lower probe.views"):
        huge.create()
    assert list(huge.directory.iterdir()) == []


def test_a_chunk_that_the_drive_refuses_is_not_done(tmp_path: Path) -> None:
    cache = made(tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(UserError, match=r"cannot write to .*File too large"):
            cache.write(TRAIN, 2, *content(TRAIN, 2))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert 2 in cache.missing(TRAIN)


def test_the_cache_has_a_place_of_its_own() -> None:
    assert default_root({"ZEROFIT_CACHE": "/scratch/me"}) == Path("/scratch/me/features")
    assert default_root({}) == Path.home() / ".cache" / "zerofit" / "features"


@given(images=st.integers(1, 3000), views=st.integers(1, 4), micro=st.integers(1, 700), ranks=st.integers(1, 9))
def test_every_row_is_computed_once_in_equally_many_and_large_forwards(
    images: int, views: int, micro: int, ranks: int
) -> None:
    part = Part("train", views, images, 8)
    todo = [chunk for chunk in range(part.chunks) if chunk % 3 != 1]  # the others were done before
    shares = [share(part, todo, micro, rank, ranks) for rank in range(ranks)]
    orders = [list(ChunkOrder(one)) for one in shares]
    assert len({len(order) for order in orders}) == 1
    assert len(orders[0]) == len(ChunkOrder(shares[0]))
    assert {len(forward) for order in orders for forward in order} == {shares[0].micro}
    assert shares[0].micro <= micro
    rows = []
    for one, order in zip(shares, orders, strict=True):
        for turn, chunk in enumerate(one.chunks[: one.kept]):
            forwards = order[turn * one.forwards : (turn + 1) * one.forwards]
            keys = [key for forward in forwards for key in forward][: len(part.span(chunk))]
            rows += [key.epoch * images + key.sample for key in keys]
    assert sorted(rows) == sorted(row for chunk in todo for row in part.span(chunk))


def split_of(path: Path, source: str = "folder") -> Images:
    rows = SOURCES[source](Data.model_validate({"source": source, "path": str(path)})).open("train")
    return Images(rows, np.arange(len(rows)), 8, skip=False)


def save_images(root: Path) -> None:
    for name in ("cat", "dog"):
        (root / name).mkdir(parents=True)
        for i in range(3):
            Image.fromarray(np.full((8, 8, 3), 20 * i, dtype=np.uint8)).save(root / name / f"{i}.png")


def test_a_folder_is_known_by_its_files_wherever_it_lies(tmp_path: Path) -> None:
    save_images(tmp_path / "a")
    before = fingerprint(split_of(tmp_path / "a"))
    (tmp_path / "a").rename(tmp_path / "b")
    assert fingerprint(split_of(tmp_path / "b")) == before
    os.utime(tmp_path / "b" / "cat" / "1.png", ns=(0, 0))
    touched = fingerprint(split_of(tmp_path / "b"))
    assert touched != before
    some = split_of(tmp_path / "b")
    assert fingerprint(Images(some.split, some.items[:5], 8, skip=False)) != touched
    assert fingerprint(Images(some.split, some.items, 8, False, labels=1 - some.labels)) != touched


def test_a_zip_is_known_by_its_members(tmp_path: Path) -> None:
    save_images(tmp_path / "tree")
    prints = []
    for value in (20, 20, 21):
        Image.fromarray(np.full((8, 8, 3), value, dtype=np.uint8)).save(tmp_path / "tree" / "cat" / "1.png")
        with zipfile.ZipFile(tmp_path / "images.zip", "w") as archive:
            for file in sorted((tmp_path / "tree").rglob("*.png")):
                archive.write(file, file.relative_to(tmp_path / "tree"))
        prints.append(fingerprint(split_of(tmp_path / "images.zip")))
    assert prints[0] == prints[1] != prints[2]


def test_pixels_in_memory_are_known_by_their_content() -> None:
    levels = torch.randint(256, (6, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))

    def of(levels: torch.Tensor, origin: str = "here") -> str:
        return fingerprint(Images(Pixels(levels, np.arange(6), origin), np.arange(6), 8, skip=False))

    assert of(levels) == of(levels.clone(), "there")
    assert of(levels) != of(levels.flip(0))
    assert of(levels) != of(levels.view(6, 1, 4, 16))


def test_a_hub_data_set_is_known_by_its_files_and_the_pictures_beside_them(tmp_path: Path) -> None:
    import datasets

    save_images(tmp_path / "pictures")
    files = [str(file) for file in sorted((tmp_path / "pictures").rglob("*.png"))]
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])})
    rows = datasets.Dataset.from_dict({"image": files, "label": [0, 0, 0, 1, 1, 1]}, features=features)
    rows.save_to_disk(tmp_path / "inside")  # with the pictures
    inside = fingerprint(split_of(tmp_path / "inside", "hub"))
    assert fingerprint(split_of(tmp_path / "inside", "hub")) == inside

    outside = tmp_path / "outside"
    shutil.copytree(tmp_path / "pictures", outside / "train")
    known = fingerprint(split_of(outside, "hub"))
    assert fingerprint(split_of(outside, "hub")) == known
    os.utime(outside / "train" / "dog" / "0.png", ns=(0, 0))
    assert fingerprint(split_of(outside, "hub")) != known
