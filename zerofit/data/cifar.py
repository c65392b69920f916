"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009) as downloaded: the directory or its .tar.gz, binary or python version."""

from __future__ import annotations

import io
import pickle
import tarfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from zerofit.config.data import Data
from zerofit.config.errors import UserError
from zerofit.data.contents import Contents, Labels, Pixels, SplitName

PIXELS = 3 * 32 * 32
Files = Mapping[str, Callable[[], bytes]]


@dataclass(frozen=True)
class Layout:
    """Which files one version consists of. `kinds`: the kinds of label, in the order of their bytes in a record."""

    train: tuple[str, ...]
    test: str
    names: dict[str, str]
    kinds: tuple[str, ...]
    binary: bool


LAYOUTS = (
    Layout(
        tuple(f"data_batch_{i}.bin" for i in range(1, 6)),
        "test_batch.bin",
        {"label": "batches.meta.txt"},
        ("label",),
        binary=True,
    ),
    Layout(
        tuple(f"data_batch_{i}" for i in range(1, 6)), "test_batch", {"label": "batches.meta"}, ("label",), binary=False
    ),
    Layout(
        ("train.bin",),
        "test.bin",
        {"fine": "fine_label_names.txt", "coarse": "coarse_label_names.txt"},
        ("coarse", "fine"),
        binary=True,
    ),
    Layout(("train",), "test", {"fine": "meta", "coarse": "meta"}, ("coarse", "fine"), binary=False),
)


def open_cifar(data: Data) -> Contents:
    """Train and test, with the names of the classes. Raises UserError where a file is missing or broken."""
    assert data.path is not None
    files = _files(Path(data.path))
    layouts = [layout for layout in LAYOUTS if layout.test in files and set(layout.names.values()) <= files.keys()]
    if len(layouts) != 1:
        what = "neither CIFAR-10 nor CIFAR-100" if not layouts else "more than one version of CIFAR"
        raise UserError(f"data.path: {data.path} holds {what}; name the directory or .tar.gz of exactly one")
    (layout,) = layouts
    kind = _kind(layout, data.label_column)
    missing = [name for name in layout.train if name not in files]
    if missing:
        raise UserError(f"data.path: {data.path} lacks {', '.join(missing)}; unpack the download again")
    classes = _classes(layout, files, kind, data.path)
    read = partial(_read, files, layout, kind, len(classes), data.path)
    openers: dict[SplitName, Any] = {"train": partial(read, layout.train), "test": partial(read, (layout.test,))}
    return Contents(data.path, classes, openers)


def _kind(layout: Layout, asked: str | None) -> str:
    if asked is None:
        return layout.kinds[-1]  # CIFAR-100: fine
    if len(layout.kinds) == 1 or asked not in layout.kinds:
        raise UserError(
            f"data.label_column: {asked} is not possible; CIFAR-100 has fine and coarse, CIFAR-10 takes null"
        )
    return asked


def _files(path: Path) -> Files:
    """Base name -> reader, of the files in a directory, in its CIFAR directories, or in an archive."""
    if path.is_dir():
        found = {file.name: file.read_bytes for file in (*path.glob("cifar-*/*"), *path.iterdir()) if file.is_file()}
        archives = [file for name in found if name.endswith((".tar.gz", ".tgz")) for file in [path / name]]
        if not any(layout.test in found for layout in LAYOUTS) and len(archives) == 1:
            return _files(archives[0])
        return found
    if not path.exists():
        raise UserError(f"data.path: {path} does not exist")
    try:
        with tarfile.open(path) as archive:  # nothing is extracted: members are read into memory
            readers = ((PurePosixPath(member.name).name, archive.extractfile(member)) for member in archive)
            content = {name: reader.read() for name, reader in readers if reader is not None}
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise UserError(f"data.path: {path} cannot be read as a tar archive ({error}); download it again") from None
    return {name: partial(bytes, value) for name, value in content.items()}


def _classes(layout: Layout, files: Files, kind: str, path: str) -> tuple[str, ...]:
    file = layout.names[kind]
    if layout.binary:
        return tuple(files[file]().decode().split())
    names = _unpickled(files[file](), f"{path}/{file}").get("label_names" if kind == "label" else f"{kind}_label_names")
    if not isinstance(names, list):
        raise UserError(f"data.path: {path}/{file} names no classes; unpack the download again")
    return tuple(str(name) for name in names)


def _read(files: Files, layout: Layout, kind: str, classes: int, path: str, names: tuple[str, ...]) -> Pixels:
    parts = [_parsed(files[name](), layout, kind, f"{path}/{name}") for name in names]
    levels = torch.from_numpy(np.concatenate([part for part, _ in parts])).view(-1, 3, 32, 32)
    labels = np.concatenate([part for _, part in parts]).astype(np.int64)
    if labels.min() < 0 or labels.max() >= classes:
        raise UserError(
            f"data.path: {path}/{names[0]} has labels beyond its {classes} classes; unpack the download again"
        )
    return Pixels(levels, labels, f"{path}/{names[0]}" + (" and following" if len(names) > 1 else ""))


def _parsed(content: bytes, layout: Layout, kind: str, file: str) -> tuple[NDArray[np.uint8], Labels]:
    """Pixels [n, 3072] and labels [n] of one file."""
    if layout.binary:
        record = len(layout.kinds) + PIXELS
        if not content or len(content) % record:
            raise UserError(f"data.path: {file} is not whole records of {record} bytes; unpack the download again")
        records = np.frombuffer(content, dtype=np.uint8).reshape(-1, record)
        return records[:, len(layout.kinds) :], records[:, layout.kinds.index(kind)].astype(np.int64)
    batch = _unpickled(content, file)
    levels: Any = batch.get("data")
    labels: Any = batch.get("labels" if kind == "label" else f"{kind}_labels")
    right = (
        isinstance(levels, np.ndarray) and levels.dtype == np.uint8 and levels.ndim == 2 and levels.shape[1] == PIXELS
    )
    if not right or not isinstance(labels, list) or len(labels) != len(levels) or not labels:
        raise UserError(f"data.path: {file} is not a batch of CIFAR images; unpack the download again")
    return levels, np.array(labels, dtype=np.int64)


def _dtype(name: str, align: object = False, copy: object = False) -> np.dtype[Any]:
    """numpy.dtype for batches of 2009, whose 0 and 1 instead of booleans newer versions warn about."""
    return np.dtype(name, align=bool(align), copy=bool(copy))


class _Restricted(pickle.Unpickler):
    """Unpickles what CIFAR's batches are made of (lists, dicts, strings, arrays of numbers), and nothing that acts."""

    def find_class(self, module: str, name: str) -> Any:
        if name == "_reconstruct" and module in ("numpy.core.multiarray", "numpy._core.multiarray"):
            return np.zeros(0).__reduce__()[0]  # where this version of numpy keeps it
        if (module, name) == ("numpy", "ndarray"):
            return np.ndarray
        if (module, name) == ("numpy", "dtype"):
            return _dtype
        if (module, name) == ("_codecs", "encode"):
            return _encode
        raise pickle.UnpicklingError(f"it names {module}.{name}, which no CIFAR batch needs")


def _encode(text: str, encoding: str) -> bytes:
    """How Python 3 pickles bytes in the old protocol."""
    return text.encode(encoding)


def _unpickled(content: bytes, file: str) -> dict[str, Any]:
    try:
        value = _Restricted(io.BytesIO(content), encoding="latin1").load()
    except Exception as error:  # broken bytes make an unpickler raise anything
        raise UserError(f"data.path: {file} is not a CIFAR batch ({error}); unpack the download again") from None
    if not isinstance(value, dict):
        raise UserError(f"data.path: {file} is not a CIFAR batch; unpack the download again")
    return {key.decode("latin1") if isinstance(key, bytes) else str(key): item for key, item in value.items()}
