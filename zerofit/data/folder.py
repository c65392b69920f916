"""Images in a folder per class, as a directory, a zip archive, or a directory of zip archives.

<class>/**/*.jpg                         everything is training data
{train,val,test}/<class>/**/*.jpg        val may be called valid or validation; <class>/images/*.JPEG is fine
val/images/*.JPEG, val/val_annotations.txt      Tiny-ImageNet's validation split, as downloaded
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from zerofit.config.data import Data
from zerofit.config.errors import UserError
from zerofit.data.contents import Contents, Split, SplitName
from zerofit.data.decode import decode
from zerofit.data.trees import Archive, Directory, Tree

SPLITS: dict[str, SplitName] = {
    "train": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
}
ANNOTATIONS = "val_annotations.txt"


class Place(NamedTuple):
    """A folder of a tree."""

    tree: Tree
    under: str

    def __str__(self) -> str:
        return str(Path(self.tree.where) / self.under)


class FolderSplit(Split):
    """Image files. Their names are one array of bytes: a million of them reach a worker process quickly."""

    def __init__(self, files: list[tuple[Tree, str, int]]) -> None:
        self.trees = list(dict.fromkeys(tree for tree, _, _ in files))
        number = {tree: i for i, tree in enumerate(self.trees)}
        self.tree_of = np.array([number[tree] for tree, _, _ in files], dtype=np.int32)
        self.members = np.array([os.fsencode(member) for _, member, _ in files])
        self.labels = np.array([label for _, _, label in files], dtype=np.int64)

    def _file(self, item: int) -> tuple[Tree, str]:
        return self.trees[self.tree_of[item]], os.fsdecode(bytes(self.members[item]))

    def image(self, item: int) -> Image.Image:
        tree, member = self._file(item)
        return decode(tree.read(member))

    def name(self, item: int) -> str:
        return str(Place(*self._file(item)))


def open_folder(data: Data) -> Contents:
    """The splits that are there; without train, the classes are those of the others.

    Raises UserError where there is no class, or a class without images.
    """
    assert data.path is not None
    roots = [_inner(tree) for tree in _trees(Path(data.path))]
    splits = _splits(roots)
    places = splits.get("train") or [place for others in splits.values() for place in others]
    classes = tuple(sorted({name for place in places for name in _classes(place, alone="train" not in splits)}))
    if not classes:
        raise UserError(f"data.path: {places[0]} holds no folders; each class needs one, with its images")
    labels = {name: label for label, name in enumerate(classes)}
    unlabelled = [split for split, places in splits.items() if any(_unlabelled(place, labels) for place in places)]
    openers = {
        split: partial(_open_split, places, labels) for split, places in splits.items() if split not in unlabelled
    }
    return Contents(data.path, classes, openers)


def _trees(path: Path) -> list[Tree]:
    if path.is_file():
        return [Archive(path)]
    if not path.is_dir():
        raise UserError(f"data.path: {path} does not exist")
    directory = Directory(path)
    if directory.folders(""):  # archives beside an extracted tree are where it came from
        return [directory]
    archives: list[Tree] = [Archive(archive) for archive in sorted(path.glob("*.zip"))]
    if not archives:
        raise UserError(f"data.path: {path} holds neither folders of images nor zip archives of them")
    return archives


def _inner(tree: Tree) -> Place:
    """The root, or the one folder in which an archive's maker put everything."""
    names = tree.folders("")
    if len(names) == 1 and names[0] not in SPLITS:
        inner = tree.folders(names[0] + "/")
        if len(inner) > 1 or set(inner) & set(SPLITS):
            return Place(tree, names[0] + "/")
    return Place(tree, "")


def _splits(roots: list[Place]) -> dict[SplitName, list[Place]]:
    splits: dict[SplitName, list[Place]] = {}
    for tree, under in roots:
        names = [name for name in tree.folders(under) if name in SPLITS]
        for name in names:
            splits.setdefault(SPLITS[name], []).append(Place(tree, f"{under}{name}/"))
    return splits or {"train": roots}


def _classes(place: Place, alone: bool) -> set[str]:
    """Classes of a split; where it stands `alone`, without a train split, a single folder `images` is none."""
    if _annotated(place):
        return {name for _, name in _by_annotation(place)}
    folders = place.tree.folders(place.under)
    return set() if alone and folders == ["images"] else set(folders)


def _annotated(place: Place) -> bool:
    return place.tree.has(place.under + ANNOTATIONS)


def _unlabelled(place: Place, labels: dict[str, int]) -> bool:
    """Whether this split has no labels (`test/*.jpg`, `test/images/*.JPEG`), which makes it useless here."""
    folders = place.tree.folders(place.under)
    return not _annotated(place) and (not folders or (folders == ["images"] and "images" not in labels))


def _open_split(places: list[Place], labels: dict[str, int]) -> FolderSplit:
    files: list[tuple[Tree, str, int]] = []
    expected: dict[str, Place] = {}
    for place in places:
        listed = _by_annotation(place) if _annotated(place) else _by_folder(place)
        if not _annotated(place):
            expected |= {name: place for name in place.tree.folders(place.under)}
        for member, name in listed:
            if name not in labels:
                raise UserError(f"data.path: {Place(place.tree, member)} is of class {name}, which train does not have")
            files.append((place.tree, member, labels[name]))
    for name in sorted(expected.keys() - {list(labels)[label] for _, _, label in files}):
        raise UserError(f"data.path: class folder {expected[name]}/{name} holds no images; fill or remove it")
    return FolderSplit(files)


def _by_folder(place: Place) -> Iterator[tuple[str, str]]:
    """(file, class) of the images in class folders; those beside the class folders belong to none."""
    for member in place.tree.images(place.under):
        name, inside, _ = member[len(place.under) :].partition("/")
        if inside:
            yield member, name


def _by_annotation(place: Place) -> Iterator[tuple[str, str]]:
    """(file, class) from lines of file name, class and box."""
    for line in place.tree.read(place.under + ANNOTATIONS).decode().splitlines():
        file, _, rest = line.partition("\t")
        yield f"{place.under}images/{file}", rest.split("\t")[0]
