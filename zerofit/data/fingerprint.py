"""Which images a split is made of, as a hash: what was computed from them is found again only for the same ones."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import singledispatch
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import xxhash
from numpy.typing import NDArray

from zerofit.data.contents import Pixels, Split
from zerofit.data.folder import FolderSplit
from zerofit.data.hub import HubSplit
from zerofit.data.images import Images
from zerofit.data.trees import Archive, Tree

Items = NDArray[np.int64]


def fingerprint(images: Images) -> str:
    """32 hexadecimal digits of the chosen images, in their order, and their labels.

    Pixels in memory count by content, files by name, size and time of change (members of a zip by name, size and CRC):
    not by the directory they lie in, so that a data set may be moved.
    """
    state = xxhash.xxh3_128(type(images.split).__name__.encode())
    state.update(np.ascontiguousarray(images.labels).tobytes())
    for part in _parts(images.split, images.items):
        state.update(part)
    return state.hexdigest()


@singledispatch
def _parts(split: Split, items: Items) -> Iterator[bytes]:
    """What changes when one of the images does. A new kind of split registers its own."""
    raise NotImplementedError(f"{type(split).__name__} has no fingerprint")


@_parts.register
def _(split: Pixels, items: Items) -> Iterator[bytes]:
    yield str(tuple(split.levels.shape[1:])).encode()
    for item in items:
        yield split.levels[int(item)].numpy().tobytes()


@_parts.register
def _(split: FolderSplit, items: Items) -> Iterator[bytes]:
    for number, tree in enumerate(split.trees):
        mine = items[split.tree_of[items] == number]
        yield from _members(tree, [os.fsdecode(bytes(member)) for member in split.members[mine]])
    yield split.tree_of[items].tobytes()  # how the trees' images alternate


@_parts.register
def _(split: HubSplit, items: Items) -> Iterator[bytes]:
    yield items.tobytes()
    for file in split.rows.cache_files:
        yield _stat(Path(file["filename"]))
    if split.rows.cache_files:  # pictures lie in those files, or beside them
        paths = split.rows.with_format("arrow")[:][split.column]
        for chunk in paths.chunks:
            outside = chunk.filter(chunk.field("bytes").is_null())
            for path in outside.field("path").to_pylist():
                yield _stat(Path(path))
    else:  # nothing on the drive tells
        for item in items:
            encoded = split.rows[int(item)][split.column]
            yield encoded["bytes"] if encoded["bytes"] is not None else _stat(Path(encoded["path"]))


def _members(tree: Tree, names: list[str]) -> Iterator[bytes]:
    if isinstance(tree, Archive):
        with ZipFile(tree.path) as archive:
            for name in names:
                info = archive.getinfo(name)
                yield f"{name} {info.file_size} {info.CRC}\n".encode("utf-8", "surrogateescape")
        return
    for name in names:
        yield _stat(Path(tree.where) / name, name)


def _stat(path: Path, name: str | None = None) -> bytes:
    found = path.stat()
    return f"{name or path.name} {found.st_size} {found.st_mtime_ns}\n".encode("utf-8", "surrogateescape")
