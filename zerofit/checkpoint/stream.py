"""Safetensors files written as tensors come, piece by piece: the library wants all of a file's tensors at once.

A file is 8 bytes of length, a JSON header padded with spaces, and the data. Names are known beforehand, shapes are not:
the header gets room for the longest that it can become, data follows, and the header is written last.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import torch
import xxhash
from safetensors import safe_open
from torch import Tensor

from zerofit.checkpoint.manifest import sync, write_json
from zerofit.config.errors import UserError
from zerofit.models.zero_files import Spread

SHARD = 5 * 10**9
"""Bytes of tensors that a file holds at most, unless one tensor alone has more."""
BLOCK = 16 * 2**20
"""Bytes that are cast, hashed and written at a time."""
ENTRY = 256
"""Bytes of a header's entry, its name apart: 64 dimensions of a tensor that has elements need 248."""
METADATA = {"format": "pt"}
NAMES = {
    torch.bool: "BOOL",
    torch.uint8: "U8",
    torch.int8: "I8",
    torch.int16: "I16",
    torch.uint16: "U16",
    torch.int32: "I32",
    torch.uint32: "U32",
    torch.int64: "I64",
    torch.uint64: "U64",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float32: "F32",
    torch.float64: "F64",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.complex64: "C64",
}

Value = Tensor | Spread
Progress = Callable[[int], None]
"""Is told how many tensors more were written or read back."""


def nothing(_: int) -> None:
    """No progress is shown."""


@dataclass
class Written:
    """What was written: to be compared with what is read back."""

    hashes: dict[str, str] = field(default_factory=dict)
    """xxh3 of each tensor's bytes, by name."""
    files: dict[str, str] = field(default_factory=dict)
    """The name of the file that holds each tensor."""
    size: int = 0
    """Bytes of all tensors."""
    elements: int = 0


class Shards:
    """`STEM.safetensors` in a directory; above `limit` bytes `STEM-00001-of-00003.safetensors` ... and an index.

    Usage: `with Shards(...) as shards:`, `write` each tensor, then `close`. Raises OSError where the drive is full.
    """

    def __init__(
        self, directory: Path, stem: str, names: Iterable[str], limit: int = SHARD, progress: Progress = nothing
    ) -> None:
        self.directory, self.stem, self.limit, self.progress = directory, stem, limit, progress
        self.left = dict.fromkeys(names)
        self.files: list[_File] = []
        self.written = Written()

    def __enter__(self) -> Shards:
        return self

    def __exit__(self, *_: object) -> None:
        if self.files:
            self.files[-1].handle.close()  # where it was not closed before

    def write(self, name: str, value: Value, dtype: torch.dtype | None = None) -> None:
        """Append a tensor, cast to `dtype`; null: as it is. Each name comes once."""
        assert name in self.left, f"{name} was not announced, or comes again"
        dtype = dtype or value.dtype
        elements = math.prod(value.shape)
        size = elements * dtype.itemsize
        if not self.files or (self.files[-1].size and self.files[-1].size + size > self.limit):
            self._close_last()
            self.files.append(_File(self.directory / f".{self.stem}-{len(self.files)}.part", room(self.left)))
        state = xxhash.xxh3_128()
        with self.files[-1].entry(name, dtype, value.shape) as put:
            for block in blocks(value, dtype):
                state.update(block)
                put(block)
        self.progress(1)
        del self.left[name]
        self.written.hashes[name] = state.hexdigest()
        self.written.size += size
        self.written.elements += elements

    def close(self) -> Written:
        """Write headers and index, durably, under their final names."""
        if not self.files:  # of nothing, a file that says so
            self.files.append(_File(self.directory / f".{self.stem}-0.part", room({})))
        self._close_last()
        count = len(self.files)
        for number, file in enumerate(self.files, 1):
            middle = f"-{number:05d}-of-{count:05d}" if count > 1 else ""
            name = f"{self.stem}{middle}.safetensors"
            os.replace(file.path, self.directory / name)
            self.written.files |= dict.fromkeys(file.entries, name)
        if count > 1:
            index = {"metadata": {"total_size": self.written.size}, "weight_map": self.written.files}
            write_json(self.directory / f"{self.stem}.safetensors.index.json", index)
        sync(self.directory)
        return self.written

    def _close_last(self) -> None:
        if self.files:
            self.files[-1].close()


class _Entry:
    """One tensor being written."""

    def __init__(self, file: _File, name: str, head: dict[str, Any]) -> None:
        self.file, self.name, self.head, self.begin = file, name, head, file.size

    def __enter__(self) -> Callable[[memoryview], None]:
        return self.file.append

    def __exit__(self, *_: object) -> None:
        self.file.entries[self.name] = {**self.head, "data_offsets": [self.begin, self.file.size]}


class _File:
    """A file with room for its header."""

    def __init__(self, path: Path, header: int) -> None:
        self.path, self.header, self.size = path, header, 0
        self.entries: dict[str, dict[str, Any]] = {}
        self.handle = path.open("wb", buffering=0)
        self.handle.seek(8 + header)

    def entry(self, name: str, dtype: torch.dtype, shape: torch.Size) -> _Entry:
        if dtype not in NAMES:
            raise UserError(f"{name} is {dtype}, which safetensors files cannot hold")
        return _Entry(self, name, {"dtype": NAMES[dtype], "shape": list(shape)})

    def append(self, block: memoryview) -> None:
        while block:  # a system call writes 2 GiB at most, and may write less
            count = self.handle.write(block)
            self.size += count
            block = block[count:]

    def close(self) -> None:
        text = _json({"__metadata__": METADATA, **self.entries})
        if len(text) > self.header:
            raise UserError(f"{self.path} would get a header of {len(text)} bytes, more than such tensors need")
        self.handle.truncate(8 + self.header + self.size)  # also where nothing was written
        self.handle.seek(0)
        self.append(memoryview(self.header.to_bytes(8, "little") + text.ljust(self.header)))
        os.fsync(self.handle.fileno())
        self.handle.close()


def room(names: Iterable[str]) -> int:
    """Bytes that a header of these names can need; a multiple of 8, so that tensors are aligned."""
    need = len(_json({"__metadata__": METADATA})) + sum(len(_json(name)) + ENTRY for name in names)
    return -(-need // 8) * 8


def blocks(value: Value, dtype: torch.dtype) -> Iterator[memoryview]:
    """The bytes of a tensor as `dtype`, BLOCK at most at a time; what is mapped from files is never whole in memory.

    A block is to be used before the next one is asked for: they share their memory.
    """
    for piece in value.pieces() if isinstance(value, Spread) else (value.detach().contiguous().flatten(),):
        for part in piece.split(max(1, BLOCK // max(piece.element_size(), dtype.itemsize))):
            if part.dtype != dtype or part.device.type != "cpu" or not part.is_contiguous():
                part = _buffer(BLOCK)[: part.numel() * dtype.itemsize].view(dtype).copy_(part)
            if part.numel():
                yield memoryview(part.view(torch.uint8).numpy())


@cache
def _buffer(size: int) -> Tensor:
    """Bytes into which all blocks are cast: new ones each time would leave holes in the heap, as large as the model."""
    return torch.empty(max(size, 16), dtype=torch.uint8)


def digest(value: Value, dtype: torch.dtype | None = None) -> str:
    """The hash that `Shards` takes of a tensor."""
    state = xxhash.xxh3_128()
    for block in blocks(value, dtype or value.dtype):
        state.update(block)
    return state.hexdigest()


def write_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    """One safetensors file of any size, durable. Unlike the library it lets other threads run meanwhile."""
    shards = Shards(path.parent, path.stem, tensors, limit=2**63)
    for name, value in tensors.items():
        shards.write(name, value)
    shards.close()


def read_back(directory: Path, written: Written, progress: Progress = nothing) -> None:
    """Load each tensor with the safetensors library. Raises UserError where it is not what was written."""
    for name, file in written.files.items():
        with safe_open(directory / file, framework="pt") as handle:
            value = handle.get_tensor(name)
        compare(name, digest(value), written.hashes, directory / file)
        progress(1)


def compare(name: str, found: str, hashes: Mapping[str, str], path: Path) -> None:
    """Raise UserError unless a tensor that was read back from `path` has the hash that it was written with."""
    if found != hashes[name]:
        raise UserError(f"{path}: {name} reads back with other contents than were written: the drive is not to be used")


def _json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
