"""The rows of a source, read once and kept on a drive: all models, whatever is told of them and in which split."""

from __future__ import annotations

import importlib.metadata
import json
import os
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import xxhash

from zerofit.config.cad import Cad
from zerofit.config.errors import UserError
from zerofit.data import sample_cache
from zerofit.data.cad_directory import read_directory
from zerofit.data.cad_parts import read_parts
from zerofit.data.cad_rows import Bad, CadRow, Cloud
from zerofit.data.samples import Mapped, Writer
from zerofit.prepare.progress import RowsProgress

READERS: dict[str, Callable[[Cad, int], Iterator[CadRow | Bad]]] = {
    "parts": read_parts,
    "deepcad": read_directory,
    "omni_cad": read_directory,
}
"""By `data.source`."""
FORMAT = 1
"""Of the rows, and of what this program makes of a model: another one reads them anew."""
PATIENCE = 2.0
"""Seconds of work that need no bar."""
FILE = "rows.arrow"
SCHEMA = pa.schema(
    [
        pa.field("id", pa.string()),
        pa.field("split", pa.string()),
        pa.field("caption", pa.large_string()),
        pa.field("commands", pa.large_string()),
        pa.field("box", pa.list_(pa.float64())),
        pa.field("cloud", pa.string()),
        pa.field("cloud_row", pa.int64()),
        pa.field("images", pa.list_(pa.string())),
    ]
)


class Rows(Mapped[CadRow]):
    """The rows in a file."""

    def column(self, name: str) -> list[Any]:
        """One field of all rows."""
        return [value for batch in self._batches for value in batch.column(name).to_pylist()]

    def _of(self, row: dict[str, Any]) -> CadRow:
        held = {name: value.as_py() for name, value in row.items()}
        box = None if held["box"] is None else (tuple(held["box"][:3]), tuple(held["box"][3:]))
        cloud = None if held["cloud"] is None else Cloud(held["cloud"], held["cloud_row"])
        return CadRow(
            held["id"], held["split"], held["caption"], held["commands"], box, cloud, tuple(held["images"] or ())
        )


@dataclass(frozen=True)
class Table:
    """The rows of a source."""

    directory: Path
    rows: Rows
    bad: tuple[Bad, ...]
    """Models that are none of them."""

    @property
    def key(self) -> str:
        """What names them: a hash of all that decides about them."""
        return self.directory.name


def read_table(data: Cad, seed: int) -> Table:
    """The rows of `data`, from before, or read now. Raises UserError."""
    embedded = data.source == "parts"
    decides = {
        "kind": "cad rows",
        "format": FORMAT,
        "source": data.source,
        "caption": data.caption,
        "parts": [data.parts, data.test_parts, seed] if embedded else None,
        "files": None if embedded else stamp(Path(str(data.path)).expanduser()),
        "version": importlib.metadata.version("zerofit"),
    }

    def make(directory: Path) -> dict[str, Any]:
        bad: list[Bad] = []
        writer = Writer(directory / FILE, SCHEMA)
        with closing(RowsProgress(name="read", delay=PATIENCE)) as bar:
            for one in READERS[data.source](data, seed):
                if isinstance(one, Bad):
                    bad.append(one)
                else:
                    writer.add(_record(one))
                bar.add()
        writer.close()
        return {"bad": [[one.id, one.reason] for one in bad]}

    directory, facts = sample_cache.kept(sample_cache.default_root(os.environ), decides, make)
    return Table(directory, Rows(directory / FILE), tuple(Bad(*one) for one in facts["bad"]))


def stamp(root: Path) -> str:
    """What changes when a file in a directory does. Raises UserError where there is none."""
    if not root.is_dir():
        raise UserError(f"data.path: {root} is no directory")
    state = xxhash.xxh3_128(str(root.absolute()).encode())
    for path in sorted(root.rglob("*")):
        found = path.stat()
        if not path.is_dir():
            state.update(json.dumps([str(path.relative_to(root)), found.st_size, found.st_mtime_ns]).encode())
    return state.hexdigest()


def _record(row: CadRow) -> dict[str, Any]:
    return {
        "id": row.id,
        "split": row.split,
        "caption": row.caption,
        "commands": row.commands,
        "box": None if row.box is None else [*row.box[0], *row.box[1]],
        "cloud": None if row.cloud is None else row.cloud.path,
        "cloud_row": None if row.cloud is None else row.cloud.row,
        "images": list(row.images),
    }
