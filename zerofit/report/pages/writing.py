"""What language models wrote, for pages: rows of parquet files, and the stretches of a text that are reasoning."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from zerofit.report.pages.parts import Piece

MOST = 6000
"""Characters of a text that are shown."""
OPEN, CLOSE = "<think>", "</think>"
THOUGHT = re.compile(rf"({OPEN}.*?(?:{CLOSE}|\Z))", re.DOTALL)


def pieces(text: str) -> list[Piece]:
    """A completion, cut where reasoning begins and ends; a template may have begun it in the prompt."""
    head, close, rest = text.partition(CLOSE)
    first = [Piece(_shortened(head + close), True)] if close and OPEN not in head else []
    left = rest if first else text
    cut = [Piece(_shortened(part), part.startswith(OPEN)) for part in THOUGHT.split(left) if part]
    return [*first, *cut]


def _shortened(text: str) -> str:
    """Its beginning and its end, where it is long."""
    if len(text) <= MOST:
        return text
    half = MOST // 2
    return f"{text[:half]}\n… {len(text) - 2 * half:,} characters …\n{text[-half:]}"


def shown(text: str) -> str:
    """A prompt."""
    return _shortened(text)


def rows(path: Path, wanted: Sequence[str]) -> list[dict[str, Any]]:
    """Rows of a parquet file, or of the last by name of a directory of them.

    Empty where it lacks a column, cannot be read, or is not there: it may be half written.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    files = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
    if not files or not files[-1].is_file():
        return []
    try:
        with pq.ParquetFile(files[-1]) as file:
            lacking = set(wanted) - set(file.schema_arrow.names)
            found: list[dict[str, Any]] = [] if lacking else file.read().to_pylist()
    except (OSError, pa.ArrowException):
        return []
    return found


def evenly_drawn(every: Sequence[dict[str, Any]], most: int) -> list[dict[str, Any]]:
    """So many of the rows, spread over all."""
    return [every[at * len(every) // most] for at in range(most)] if len(every) > most else list(every)
