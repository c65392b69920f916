"""One JSON document of many rows, read as a stream: the file may be larger than memory."""

from __future__ import annotations

import json
from codecs import BOM_UTF8
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import zip_longest
from typing import IO, Any

import ijson

from zerofit.prepare.rows import Broken, Row
from zerofit.prepare.sources import Source

DIALOGUES = ("messages", "conversations", "prompt", "completion")
"""Fields whose value may be a list of objects and yet of one row."""
PEEK = 16 * 2**20
"""Bytes of the first line that are parsed to know what follows."""
_END = object()


def is_lines(source: Source) -> bool:
    """Whether the first line is a whole object and more follows: JSON Lines under the name .json."""
    with source.open() as file:
        first = file.readline(PEEK)
        while first and not first.strip():
            first = file.readline(PEEK)
        if first.lstrip()[:1] == b"[":
            return False
        try:
            whole = isinstance(json.loads(first.decode("utf-8-sig")), dict)
        except (ValueError, RecursionError):
            return False
        return whole and any(file.readline(PEEK).strip() for _ in range(2))


def rows(source: Source) -> Iterator[Row | Broken]:
    """The rows of an array; of an object that has one array of objects; of an object of arrays, which are columns."""
    last = source.name
    try:
        for place, value in _rows(source):
            last = place
            yield Row(place, value)
    except (ijson.JSONError, RecursionError) as error:
        after = "nothing of it" if last == source.name else "nothing after that"
        yield Broken(last, f"not JSON: {after} can be read: {' '.join(str(error).split()) or 'nested too deeply'}")


def _rows(source: Source) -> Iterator[tuple[str, Any]]:
    kind, arrays = _outline(source)
    if kind == "start_array":
        prefixes = ["item"]
    elif arrays and len(arrays) == 1 and set(arrays.values()) == {"start_map"} and not set(arrays) & set(DIALOGUES):
        prefixes = [f"{next(iter(arrays))}.item"]
    elif arrays and not (set(arrays) & set(DIALOGUES) and "start_map" in arrays.values()):
        yield from _columns(source, list(arrays))
        return
    else:
        prefixes = [""]
    with _opened(source) as file:
        for number, value in enumerate(ijson.items(file, prefixes[0], use_float=True), start=1):
            yield f"{source.name}:{number}", value


def _outline(source: Source) -> tuple[str, dict[str, str]]:
    """What the document is, and of an object its arrays: their names, and what the first item of each is."""
    arrays: dict[str, str] = {}
    kind, opened = "", ""
    with _opened(source) as file:
        for prefix, event, _ in ijson.parse(file):
            if not kind:
                kind = event
                if kind != "start_map":
                    break
            elif opened:  # the first item of an array, or its end
                if event != "end_array" or prefix != opened:
                    arrays[opened] = event
                opened = ""
            elif event == "start_array" and prefix and "." not in prefix and prefix not in arrays:
                opened = prefix
    return kind, arrays


def _columns(source: Source, names: list[str]) -> Iterator[tuple[str, Any]]:
    """As many readers as there are columns, side by side."""
    with ExitStack() as files:
        columns = [ijson.items(files.enter_context(_opened(source)), f"{name}.item", use_float=True) for name in names]
        for number, cells in enumerate(zip_longest(*columns, fillvalue=_END), start=1):
            if _END in cells:
                short = names[cells.index(_END)]
                raise ijson.JSONError(f"the column {short} ends after {number - 1} rows, others go on")
            yield f"{source.name}:{number}", dict(zip(names, cells, strict=True))


@contextmanager
def _opened(source: Source) -> Iterator[IO[bytes]]:
    """Without the mark of byte order that some editors put before UTF-8."""
    with source.open() as file:
        if file.read(len(BOM_UTF8)) != BOM_UTF8:
            file.seek(0)
        yield file
