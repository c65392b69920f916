"""Features of a frozen backbone on a drive: memory-mapped files, in a directory named by what they are of.

    <root>/<key>/meta.json         what the features are of; the key is its hash
                 train.bf16        [views, images, width], bfloat16
                 train.labels      [views, images], int64; -100 where the image could not be read
                 train.done        a byte for each chunk of rows: 1 once its features lie on the drive
                 test.bf16 ...     the split that is evaluated

Whoever is killed leaves chunks that are not done; the next run, with any number of ranks, computes those alone.
Files are written with write(2): one who writes through a memory map dies of SIGBUS where the drive is full.
"""

from __future__ import annotations

import json
import os
import shutil
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xxhash
from torch import Tensor

from zerofit.config.errors import UserError
from zerofit.data.contents import SplitName

META = "meta.json"


@dataclass(frozen=True)
class Part:
    """The features of one split. Row `view * images + image` is of that view of that image."""

    name: SplitName
    views: int
    images: int
    width: int

    @property
    def rows(self) -> int:
        """Vectors in all."""
        return self.views * self.images

    @property
    def chunk(self) -> int:
        """Rows that become done together: a function of the size alone, so that any number of ranks can go on."""
        return max(32, min(512, self.rows // 32))

    @property
    def chunks(self) -> int:
        """Chunks in all; the last may have fewer rows."""
        return -(-self.rows // self.chunk)

    def span(self, chunk: int) -> range:
        """The rows of a chunk."""
        return range(chunk * self.chunk, min((chunk + 1) * self.chunk, self.rows))

    def sizes(self) -> dict[str, int]:
        """Bytes of each file."""
        return {
            f"{self.name}.bf16": 2 * self.width * self.rows,
            f"{self.name}.labels": 8 * self.rows,
            f"{self.name}.done": self.chunks,
        }


@dataclass(frozen=True)
class Features:
    """Features of training images and of those that are evaluated, memory-mapped and read-only."""

    train: Tensor
    """[views, n, width], bfloat16."""
    train_labels: Tensor
    """int64 [n]; -100: left out."""
    test: Tensor
    """[m, width], bfloat16."""
    test_labels: Tensor
    """int64 [m]; -100: left out."""
    split: SplitName
    """Name of the split that `test` is of."""
    directory: Path
    """Where they lie."""
    images_s: float | None
    """Images (each view counts) that all ranks together put through the backbone in a second; null: all were there."""

    @property
    def reused(self) -> bool:
        """Whether everything was there already."""
        return self.images_s is None


def default_root(environ: Mapping[str, str]) -> Path:
    """$ZEROFIT_CACHE/features, or ~/.cache/zerofit/features."""
    given = environ.get("ZEROFIT_CACHE")
    return (Path(given) if given else Path.home() / ".cache" / "zerofit") / "features"


class FeatureCache:
    """The directory of the features that `facts` say everything about (JSON values: weights, preprocessing, data)."""

    def __init__(self, root: Path, facts: dict[str, Any], parts: Sequence[Part]) -> None:
        shapes = {part.name: [part.views, part.images, part.width] for part in parts}
        self.facts = json.loads(json.dumps({"version": 1, **facts, "shapes": shapes}))
        self.parts = tuple(parts)
        text = json.dumps(self.facts, sort_keys=True)
        self.directory = root.expanduser().absolute() / xxhash.xxh3_128(text.encode()).hexdigest()
        self.sizes = {name: size for part in parts for name, size in part.sizes().items()}

    def create(self) -> None:
        """Make the files where they are not there yet; to be called by one process. Raises UserError.

        Killed amid this, it does the same again: no meta.json, no features yet.
        """
        begun = (self.directory / META).exists()
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            if begun:
                self.check()
            self._check_space()
            if not begun:
                for name, size in self.sizes.items():
                    with (self.directory / name).open("ab") as file:
                        file.truncate(size)
                self._write_meta()
        except OSError as error:
            raise self._unwritable(error) from None

    def check(self) -> None:
        """Raise UserError where the directory is not what its name says."""
        try:
            facts = json.loads((self.directory / META).read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise UserError(
                f"probe.cache: {self.directory} is not there for every rank; name a directory that all hosts share"
            ) from None
        except (OSError, ValueError):
            raise self._damaged(f"its {META} cannot be read") from None
        if facts != self.facts:
            known = facts if isinstance(facts, dict) else {}
            other = [name for name in self.facts if known.get(name) != self.facts[name]]
            raise self._damaged(f"by its {META} it is of other {' and '.join(other) or 'things'} than its name says")
        for name, size in self.sizes.items():
            path = self.directory / name
            found = path.stat().st_size if path.exists() else None
            if found != size:
                has = "is missing" if found is None else f"has {found} bytes, not {size}"
                raise self._damaged(f"{name} {has}")

    def missing(self, part: Part) -> list[int]:
        """The chunks that are not done."""
        done = np.fromfile(self.directory / f"{part.name}.done", dtype=np.uint8)
        return np.flatnonzero(done != 1).tolist()

    def write(self, part: Part, chunk: int, vectors: Tensor, labels: Tensor) -> None:
        """Put a chunk's rows on the drive (bfloat16 [rows, width] and int64 [rows], on CPU), then note that it is done.

        Raises UserError where the drive does not take them.
        """
        first, rows = part.span(chunk).start, len(part.span(chunk))
        assert vectors.shape == (rows, part.width), vectors.shape
        assert vectors.dtype == torch.bfloat16
        assert labels.shape == (rows,)
        try:
            self._put(f"{part.name}.bf16", 2 * part.width * first, vectors.contiguous().view(torch.uint8))
            self._put(f"{part.name}.labels", 8 * first, labels.contiguous().view(torch.uint8))
            self._put(f"{part.name}.done", chunk, torch.ones(1, dtype=torch.uint8))
        except OSError as error:
            raise self._unwritable(error) from None

    def vectors(self, part: Part) -> Tensor:
        """bfloat16 [views, images, width], mapped: not to be written to."""
        mapped = _mapped(self.directory / f"{part.name}.bf16", np.dtype(np.int16))
        return mapped.view(torch.bfloat16).view(part.views, part.images, part.width)

    def labels(self, part: Part) -> Tensor:
        """int64 [images]; -100 where any view of the image could not be read."""
        labels = torch.from_numpy(np.fromfile(self.directory / f"{part.name}.labels", dtype=np.int64))
        return labels.view(part.views, part.images).amin(dim=0)

    def _put(self, name: str, offset: int, content: Tensor) -> None:
        with (self.directory / name).open("r+b", buffering=0) as file:
            file.seek(offset)
            rest = memoryview(content.numpy().tobytes())
            while rest:
                rest = rest[file.write(rest) :]
            os.fsync(file.fileno())

    def _write_meta(self) -> None:
        fresh = self.directory / f".{META}.{os.getpid()}"
        fresh.write_text(json.dumps(self.facts, indent=1) + "\n", encoding="utf-8")
        os.replace(fresh, self.directory / META)

    def _check_space(self) -> None:
        files = [self.directory / name for name in self.sizes]
        held = sum(file.stat().st_blocks * 512 for file in files if file.exists())  # a file is a hole where nothing is
        needed, free = sum(self.sizes.values()) - held, shutil.disk_usage(self.directory).free
        done = held > 0 and not any(self.missing(part) for part in self.parts)
        if needed > free and not done:
            raise UserError(
                f"probe.cache: the features need {needed / 2**30:.1f} GiB more in {self.directory.parent}, which has "
                f"{free / 2**30:.1f} GiB free; free some, lower probe.views, or name another directory"
            )

    def _damaged(self, what: str) -> UserError:
        return UserError(f"probe.cache: {self.directory} is damaged ({what}); remove that directory, and run again")

    def _unwritable(self, error: OSError) -> UserError:
        return UserError(
            f"probe.cache: cannot write to {self.directory} ({error.strerror}); make room there, or name another "
            "directory: what is done is kept"
        )


def _mapped(path: Path, dtype: np.dtype[Any]) -> Tensor:
    content = np.memmap(path, dtype=dtype, mode="r")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")  # that is what we want
        return torch.from_numpy(content)
