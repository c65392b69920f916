"""Samples of text on a drive, memory-mapped: an Arrow file for each split.

<root>/<key>/facts.json            what the samples are; the key is a hash of all that decides them
             train.arrow           a sample a row: tokens, learnt, lengths; of prompts: tokens, row, where
             validation.arrow ...
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from zerofit.config.errors import UserError
from zerofit.data.splits import SplitName
from zerofit.plan.spec import TextFacts

PACKED = b"packed"
"""In the metadata of a file whose samples are of several rows each."""
BATCH = 1024
"""Rows of a record batch; the last has fewer."""
SAMPLES = pa.schema(
    [
        pa.field("tokens", pa.large_list(pa.int32())),
        pa.field("learnt", pa.large_list(pa.bool_())),
        pa.field("lengths", pa.list_(pa.int32())),
    ]
)
PROMPTS = pa.schema(
    [
        pa.field("tokens", pa.large_list(pa.int32())),
        pa.field("row", pa.large_string()),
        pa.field("where", pa.large_string()),
    ]
)


@dataclass(frozen=True)
class Sample:
    """What is learnt from at once: a row of text, or several that are packed."""

    tokens: NDArray[np.int32]
    learnt: NDArray[np.bool_]
    """Whether the token is a target; the first one of a row never is."""
    lengths: tuple[int, ...]
    """Of the rows in it."""


@dataclass(frozen=True)
class Prompt:
    """What completions are asked for."""

    tokens: NDArray[np.int32]
    row: dict[str, Any]
    """What rewards are told: `messages` (the turns of the prompt), `answer`, and the other fields of the source."""
    where: str
    """`file:line` of the source."""


T = TypeVar("T")


class Mapped(Generic[T]):
    """Rows of an Arrow file, as `Writer` writes them; each kind of file says what a row of it is (`_of`)."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._open()

    def _open(self) -> None:
        reader = pa.ipc.open_file(pa.memory_map(str(self.path)))
        self.packed = PACKED in (reader.schema.metadata or {})
        self._batches = [reader.get_batch(i) for i in range(reader.num_record_batches)]
        self._rows = sum(batch.num_rows for batch in self._batches)

    def __getstate__(self) -> Path:  # worker processes map the file themselves
        return self.path

    def __setstate__(self, path: Path) -> None:
        self.path = path
        self._open()

    def __len__(self) -> int:
        return self._rows

    def __iter__(self) -> Iterator[T]:
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: int) -> T:
        if not 0 <= index < len(self):
            raise IndexError(index)
        batch, row = self._batches[index // BATCH], index % BATCH
        return self._of({name: batch.column(name)[row] for name in batch.schema.names})

    def _of(self, row: dict[str, Any]) -> T:
        raise NotImplementedError


class Samples(Mapped[Sample]):
    """The samples of a split."""

    def _of(self, row: dict[str, Any]) -> Sample:
        lengths = row["lengths"].values.to_numpy()
        return Sample(_numbers(row["tokens"]), _numbers(row["learnt"]), tuple(lengths.tolist()))


class Prompts(Mapped[Prompt]):
    """The prompts of a split."""

    def _of(self, row: dict[str, Any]) -> Prompt:
        return Prompt(_numbers(row["tokens"]), json.loads(row["row"].as_py()), row["where"].as_py())


def _numbers(value: Any) -> Any:
    return value.values.to_numpy(zero_copy_only=False)


def open_samples(facts: TextFacts, split: SplitName) -> Samples:
    """The samples of a split of the task sft. Raises UserError where they are not what `facts` describe."""
    return open_mapped(Samples, facts, split)


def open_prompts(facts: TextFacts, split: SplitName) -> Prompts:
    """The prompts of a split of the task grpo. Raises UserError where they are not what `facts` describe."""
    return open_mapped(Prompts, facts, split)


M = TypeVar("M", bound=Mapped[Any])


def open_mapped(kind: type[M], facts: TextFacts, split: SplitName) -> M:
    """The file of a split, whose rows are of that kind. Raises UserError where it is not what `facts` describe."""
    planned = {"train": facts.train, "validation": facts.validation, "test": facts.test}[split]
    if split == "validation" and facts.validation_from == "test":
        split = "test"
    path = facts.samples / f"{split}.arrow"
    try:
        found = kind(path)
    except (OSError, pa.ArrowInvalid) as error:
        gone = "is not there (any more, or for every rank)" if not path.exists() else "is damaged"
        raise UserError(
            f"data: the samples of this run, {path}, {gone}: {' '.join(str(error).split())[:200]}"
        ) from None
    if len(found) != planned:
        raise UserError(f"data: {path} holds {len(found)} samples, not the {planned} that the run was planned for")
    return found


class Writer:
    """Writes rows to an Arrow file, a record batch at a time."""

    def __init__(self, path: Path, schema: Any) -> None:
        self.rows = 0
        self._schema, self._waiting = schema, list[dict[str, Any]]()
        self._writer = pa.ipc.new_file(str(path), schema)

    def add(self, row: dict[str, Any]) -> None:
        """One more row."""
        self._waiting.append(row)
        self.rows += 1
        if len(self._waiting) == BATCH:
            self._flush()

    def close(self) -> None:
        """Finish the file."""
        if self._waiting:
            self._flush()
        self._writer.close()

    def _flush(self) -> None:
        columns = [pa.array([row[field.name] for row in self._waiting], type=field.type) for field in self._schema]
        self._writer.write_batch(pa.record_batch(columns, schema=self._schema))
        self._waiting = []


def count(path: Path) -> tuple[int, int]:
    """How many samples a file holds, and how many tokens the longest has."""
    samples = Samples(path)
    return len(samples), max(len(sample.tokens) for sample in samples)
