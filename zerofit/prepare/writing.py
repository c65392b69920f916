"""The output: parquet shards that are the same bytes for the same rows, in a directory that is whole or not there."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from zerofit.config.errors import UserError
from zerofit.prepare.rows import Example

TURNS = pa.list_(pa.struct([pa.field("role", pa.string()), pa.field("content", pa.string())]))
SCHEMA = pa.schema(
    [
        pa.field("messages", TURNS),
        pa.field("prompt", TURNS),
        pa.field("answer", pa.string()),
        pa.field("tools", pa.string()),
        pa.field("source", pa.string()),
    ]
)
GROUP_ROWS = 1024
"""Rows of a row group, at most."""
GROUP_CHARACTERS = 32 * 2**20
"""Characters of a row group, about: what is held in memory before it is written."""


@dataclass(frozen=True)
class Shard:
    """A file that was written."""

    name: str
    rows: int
    size: int
    sha256: str


class Shards:
    """Writes rows to part-00000.parquet and those that follow."""

    def __init__(self, directory: Path, rows: int) -> None:
        self.directory, self.rows = directory, rows
        self.written: list[Shard] = []
        self._writer: Any = None
        self._group: list[dict[str, Any]] = []
        self._characters = self._in_shard = 0

    def add(self, example: Example, source: str) -> None:
        """Write one row."""
        self._group.append(
            {
                "messages": [message._asdict() for message in example.messages],
                "prompt": [message._asdict() for message in example.prompt],
                "answer": example.answer,
                "tools": example.tools,
                "source": source,
            }
        )
        self._in_shard += 1
        self._characters += sum(len(message.content) for message in example.messages)
        full = self._in_shard == self.rows
        if full or len(self._group) == GROUP_ROWS or self._characters > GROUP_CHARACTERS:
            self._flush()
        if full:
            self.close()

    def close(self) -> None:
        """Finish the shard that is being written, if any."""
        self._flush()
        if self._writer is None:
            return
        self._writer.close()
        self._writer = None
        path = self._path()
        self.written.append(Shard(path.name, self._in_shard, path.stat().st_size, sha256(path)))
        self._in_shard = 0

    def _flush(self) -> None:
        if not self._group:
            return
        if self._writer is None:
            self._writer = pq.ParquetWriter(
                self._path(), SCHEMA, compression="zstd", compression_level=3, version="2.6", write_statistics=False
            )
        self._writer.write_table(pa.Table.from_pylist(self._group, schema=SCHEMA), row_group_size=GROUP_ROWS)
        self._group, self._characters = [], 0

    def _path(self) -> Path:
        return self.directory / f"part-{len(self.written):05d}.parquet"


@contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM ends the process in good order; in a thread, where nobody can ask for that, at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def staged(output: Path) -> Iterator[Path]:
    """A directory beside `output` that takes its name at the end, and is removed where that is not reached."""
    staging = output.with_name(f".{output.name}.{os.getpid()}")
    output.parent.mkdir(parents=True, exist_ok=True)
    staging.mkdir()
    try:
        with _terminable():
            yield staging
        try:
            os.rename(staging, output)  # over an empty directory as well
        except OSError:
            raise UserError(f"{output} has come to be while it was being written; name a new directory") from None
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise UserError(f"--output {output}: the drive is full; make room, or name another directory") from None
        raise
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def write_json(path: Path, value: dict[str, Any]) -> None:
    """One JSON object, in the order that it has."""
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def sha256(path: Path) -> str:
    """As `sha256sum` writes it."""
    with path.open("rb") as file:
        state = hashlib.sha256()
        while block := file.read(2**20):
            state.update(block)
    return state.hexdigest()


def shard_records(shards: list[Shard]) -> list[dict[str, Any]]:
    """As the manifest lists them."""
    return [asdict(shard) for shard in shards]
