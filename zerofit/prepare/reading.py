"""The rows of a source, one after the other: what cannot be read is told, and never stops the rest."""

from __future__ import annotations

import csv
import gzip
import io
import json
import zlib
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias
from zipfile import BadZipFile

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import ArrowInvalid

from zerofit.config.limited import MOST
from zerofit.prepare import documents, hub
from zerofit.prepare.rows import Broken, Row
from zerofit.prepare.sources import HUB, Source

Item: TypeAlias = Row | Broken

DAMAGED = (
    EOFError,
    zlib.error,
    BadZipFile,
    gzip.BadGzipFile,
    UnicodeDecodeError,
    ArrowInvalid,
    MemoryError,  # a size that is nonsense
    NotImplementedError,
)
"""What containers raise where their content is not what it should be."""
TABLE_ROWS = 256
"""Rows of a table that are in memory at a time."""


def read(source: Source) -> Iterator[Item]:
    """All of its rows; a Broken for each that is none, and a last one where the source ends before its end."""
    last = source.name
    try:
        for item in READERS[source.format](source):
            last = item.source
            yield item
    except DAMAGED as error:
        yield Broken(last, _ends(source, last, error))
    except OSError as error:
        if error.errno is not None:  # the drive's, not the content's
            raise
        yield Broken(last, _ends(source, last, error))


def _ends(source: Source, last: str, error: Exception) -> str:
    after = "nothing of it" if last == source.name else "nothing after that"
    return f"{after} can be read: {_said(error)}"


def _said(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else text[:197] + "..."


def lines(source: Source) -> Iterator[Item]:
    """JSON Lines: a value a line; blank lines are none."""
    with source.open() as file:
        for number, line in _lines(file):
            place = f"{source.name}:{number}"
            if line is None:
                yield Broken(place, f"a line of more than {MOST / 2**20:g} MiB")
                continue
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8")
                if text.strip():
                    yield Row(place, json.loads(text, parse_constant=_missing))
            except UnicodeDecodeError as error:
                yield Broken(place, f"not UTF-8: {error.reason} at byte {error.start + 1} of the line")
            except json.JSONDecodeError as error:
                yield Broken(place, f"not JSON: {error.msg.removesuffix(' at')} at character {error.pos + 1}")
            except (ValueError, RecursionError) as error:
                yield Broken(place, f"not JSON: {_said(error)}")


def _missing(_: str) -> None:
    """NaN and the infinities, which JSON has not: what pandas writes where a value is missing."""


def _lines(file: Any) -> Iterator[tuple[int, bytes | None]]:
    """Numbered lines; null for one that is too long to be held."""
    number = 0
    while line := file.readline(MOST + 1):
        number += 1
        if len(line) <= MOST:
            yield number, line
            continue
        while line and not line.endswith(b"\n"):
            line = file.readline(MOST)
        yield number, None


def document(source: Source) -> Iterator[Item]:
    """A .json file: an array of rows, an object of columns or with one array of rows, or JSON Lines after all."""
    return lines(source) if documents.is_lines(source) else documents.rows(source)


def table(source: Source) -> Iterator[Item]:
    """CSV, or with tabs TSV; the first row names the fields."""
    csv.field_size_limit(MOST)
    with source.open() as file:
        text = io.TextIOWrapper(file, encoding="utf-8-sig", newline="")
        reader = csv.reader(text, delimiter="\t" if source.format == ".tsv" else ",", strict=True)
        header: list[str] | None = None
        while True:
            place = f"{source.name}:{reader.line_num + 1}"
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield Broken(place, f"not CSV: {error}")
                continue
            if not cells:
                continue
            if header is None:
                header = cells
            elif len(cells) != len(header):
                yield Broken(place, f"{len(cells)} cells, where the first row names {len(header)} fields")
            else:
                yield Row(place, {name: cell if cell != "" else None for name, cell in zip(header, cells, strict=True)})


def parquet(source: Source) -> Iterator[Item]:
    """A parquet file, a batch of rows at a time."""
    with source.open() as file:
        batches = pq.ParquetFile(file).iter_batches(batch_size=TABLE_ROWS)
        yield from _numbered(source, batches)


def arrow(source: Source) -> Iterator[Item]:
    """An Arrow stream, as `datasets` writes to a drive."""
    with source.open() as file:
        reader = pa.ipc.open_stream(file)
        yield from _numbered(source, (part for batch in reader for part in _cut(batch)))


def _cut(batch: Any) -> Iterator[Any]:
    for start in range(0, batch.num_rows, TABLE_ROWS):
        yield batch.slice(start, TABLE_ROWS)


def _numbered(source: Source, batches: Iterator[Any]) -> Iterator[Row]:
    number = 0
    for batch in batches:
        batch.validate(full=True)  # else offsets that lead elsewhere are followed, and the process dies
        for value in batch.to_pylist():
            number += 1
            yield Row(f"{source.name}:{number}", value)


def texts(source: Source) -> Iterator[Item]:
    """Plain text: pieces between lines of `===`, each a row with the field `text`."""
    with source.open() as file:
        piece: list[str] = []
        start, size = 1, 0
        for number, line in _lines(file):
            size += len(line or b"")
            if line is None or size > MOST:
                yield Broken(f"{source.name}:{start}", f"a text of more than {MOST / 2**20:g} MiB")
                piece, start, size = [], number + 1, 0
                continue
            text = line.decode("utf-8-sig" if number == 1 else "utf-8")
            if len(bar := text.strip()) >= 3 and set(bar) == {"="}:
                yield from _piece(source, start, piece)
                piece, start, size = [], number + 1, 0
            elif piece or text.strip():
                piece.append(text)
            else:
                start = number + 1
        yield from _piece(source, start, piece)


def _piece(source: Source, start: int, piece: list[str]) -> Iterator[Row]:
    text = "".join(piece).strip()
    if text:
        yield Row(f"{source.name}:{start}", {"text": text})


def data_set(source: Source) -> Iterator[Item]:
    """A data set of the hub."""
    for number, value in enumerate(hub.rows(source.name), start=1):
        yield Row(f"{source.name}:{number}", value)


READERS: dict[str, Callable[[Source], Iterator[Item]]] = {
    ".jsonl": lines,
    ".ndjson": lines,
    ".json": document,
    ".parquet": parquet,
    ".arrow": arrow,
    ".csv": table,
    ".tsv": table,
    ".txt": texts,
    HUB: data_set,
}
"""By format."""
