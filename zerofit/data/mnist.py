"""MNIST and its relatives (Fashion-MNIST, EMNIST ...) in the idx format of yann.lecun.com, gzipped or not."""

from __future__ import annotations

import gzip
import math
import zlib
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from zerofit.config.data import Data
from zerofit.config.errors import UserError
from zerofit.data.contents import Contents, Labels, Pixels, SplitName

FILES: dict[SplitName, str] = {"train": "train", "test": "t10k"}


def open_mnist(data: Data) -> Contents:
    """Those of train and test that are there; classes are named by their numbers. Raises UserError at a broken file."""
    assert data.path is not None
    directory = Path(data.path)
    images = {split: _find(directory, f"{name}-images", "idx3") for split, name in FILES.items()}
    found = {split: file for split, file in images.items() if file is not None}
    if not found:
        what = "holds no train-images-idx3-ubyte(.gz)" if directory.is_dir() else "is not a directory"
        raise UserError(f"data.path: {directory} {what}; name the directory of the four idx files")
    labels = {split: _labels(directory, FILES[split]) for split in found}
    classes = tuple(str(i) for i in range(max(int(part.max()) for part in labels.values()) + 1))
    openers: dict[SplitName, Any] = {split: partial(_open_split, file, labels[split]) for split, file in found.items()}
    return Contents(data.path, classes, openers)


def _find(directory: Path, name: str, kind: str) -> Path | None:
    """`train-images-idx3-ubyte`, with a dot in the middle or .gz behind; EMNIST puts its own name before."""
    for mark in "-.":
        for end in ("", ".gz"):
            matches = sorted(directory.glob(f"*{name}{mark}{kind}-ubyte{end}"))
            if len(matches) > 1:
                raise UserError(
                    f"data.path: {directory} holds several sets ({matches[0].name}, {matches[1].name}); keep one"
                )
            if matches:
                return matches[0]
    return None


def _labels(directory: Path, name: str) -> Labels:
    file = _find(directory, f"{name}-labels", "idx1")
    if file is None:
        raise UserError(f"data.path: {directory} holds no {name}-labels-idx1-ubyte(.gz)")
    labels = read_idx(file, dimensions=1).astype(np.int64)
    if not len(labels):
        raise UserError(f"data.path: {file} is empty")
    return labels


def _open_split(file: Path, labels: Labels) -> Pixels:
    levels = read_idx(file, dimensions=3)
    if len(levels) != len(labels):
        raise UserError(f"data.path: {file} has {len(levels)} images for {len(labels)} labels; download both again")
    return Pixels(torch.from_numpy(levels).unsqueeze(1), labels, str(file))


def read_idx(file: Path, dimensions: int) -> NDArray[np.uint8]:
    """An idx file of bytes: 0, 0, 8, number of dimensions, each size as a big-endian uint32, then the values.

    Raises UserError where it is something else, or cut off.
    """
    try:
        content = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"data.path: {file} cannot be read ({error}); download it again") from None
    start = 4 + 4 * dimensions
    if content[:4] != bytes((0, 0, 8, dimensions)) or len(content) < start:
        raise UserError(f"data.path: {file} is not an idx file of bytes in {dimensions} dimensions")
    shape = tuple(int(size) for size in np.frombuffer(content[4:start], dtype=">u4"))
    if len(content) != start + math.prod(shape):
        size = len(content) - start
        raise UserError(f"data.path: {file} has {size} bytes of values, not {math.prod(shape)}; download it again")
    return np.frombuffer(content[start:], dtype=np.uint8).reshape(shape).copy()
