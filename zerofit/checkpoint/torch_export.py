"""One file of torch.save: `model`, and `optimizer` keyed by parameters' names, as torch.distributed.checkpoint has it.

torch.save wants all tensors at once. They are put into scratch files beside, one after the other, and mapped from
there: memory holds what the system keeps of files, which it can drop.
"""

from __future__ import annotations

import errno
import math
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import xxhash
from torch import Tensor

from zerofit.checkpoint.content import Content, value_of
from zerofit.checkpoint.manifest import sync
from zerofit.checkpoint.stream import Progress, Value, Written, blocks, compare, digest, nothing
from zerofit.config.errors import UserError


def write_torch(content: Content, path: Path, dtype: torch.dtype, progress: Progress = nothing) -> Written:
    """Write `path`, parameters in `dtype`, and compare what is read back. Raises UserError, OSError."""
    with _scratch(path) as scratch:
        kept: dict[str, Any] = {"model": {}}
        for name, value in content.weights():
            kept["model"][name] = scratch.put(name, value, content.dtype_of(name, value, dtype))
            scratch.written.elements += math.prod(value.shape)
            progress(1)
        lacking = [name for name in content.names if name not in kept["model"]]
        if lacking:
            raise UserError(f"{content.source} lacks {lacking[0]}")
        if content.optimizer is not None:
            state: dict[str, dict[str, Tensor]] = {}
            for name, kinds in content.optimizer.moments.items():
                state[name] = {}
                for kind, read in kinds.items():
                    value = value_of(read)
                    state[name][kind] = scratch.put(f"{kind}.{name}", value, value.dtype)
                    progress(1)
                if name in content.optimizer.counts:
                    state[name]["step"] = torch.tensor(content.optimizer.counts[name], dtype=torch.float32)
            kept["optimizer"] = {"state": state, "param_groups": list(content.optimizer.groups)}
        try:
            torch.save(kept, path)
        except RuntimeError:  # "basic_ios::clear", "unexpected pos 640 vs 598": torch loses the system's word
            raise OSError(errno.EIO, "the drive is full, or fails") from None
    sync(path)
    _read_back(path, scratch.written, progress)
    return scratch.written


class _Scratch:
    """Files of tensors, mapped into memory."""

    def __init__(self, directory: Path) -> None:
        self.directory, self.written = directory, Written()

    def put(self, name: str, value: Value, dtype: torch.dtype) -> Tensor:
        """The tensor, cast to `dtype`, in a file of its own."""
        path = self.directory / str(len(self.written.hashes))
        state = xxhash.xxh3_128()
        with path.open("wb") as file:
            for block in blocks(value, dtype):
                state.update(block)
                file.write(block)
        elements = math.prod(value.shape)
        self.written.hashes[name] = state.hexdigest()
        self.written.size += elements * dtype.itemsize
        if not elements:
            return torch.empty(value.shape, dtype=dtype)
        return torch.from_file(str(path), shared=True, size=elements, dtype=dtype).view(value.shape)


@contextmanager
def _scratch(path: Path) -> Iterator[_Scratch]:
    directory = path.with_name(f"{path.name}.tensors")
    shutil.rmtree(directory, ignore_errors=True)  # of an export that was cut off
    directory.mkdir()
    try:
        yield _Scratch(directory)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _read_back(path: Path, written: Written, progress: Progress) -> None:
    loaded = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
    found = dict(loaded["model"])
    for name, kinds in loaded.get("optimizer", {"state": {}})["state"].items():
        found |= {f"{kind}.{name}": value for kind, value in kinds.items() if kind != "step"}
    for name in written.hashes:
        if name not in found:
            raise UserError(f"{path}: {name} is not there when it is read back: the drive is not to be used")
        compare(name, digest(found[name]), written.hashes, path)
        progress(1)
