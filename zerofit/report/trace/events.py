"""Trace files, read one event at a time: a file decides neither our memory nor our patience, however it was packed."""

from __future__ import annotations

import gzip
import io
import json
import os
import re
import stat
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from zerofit.config.errors import UserError

Event = dict[str, Any]

MOST = 2**30
"""Characters of JSON that are read of one rank's trace: some 4 million events."""
MOST_OF_ONE = 64 * 2**20
"""Characters that one event, or one value beside the events, may have."""
CHUNK = 2**20
_SPACE = re.compile(r"[ \t\r\n]*")


class Trace:
    """One rank's trace. `metadata` holds what stands beside the events, once all of them have been read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.metadata: dict[str, Any] = {}

    def events(self) -> Iterator[Event]:
        """Every event. Raises UserError where the file is no trace, is damaged, or is too large."""
        found = False
        try:
            with _text(self.path) as file:
                reader = _Reader(file)
                reader.expect("{")
                while reader.next_of("}"):
                    name = reader.value()
                    reader.expect(":")
                    if name != "traceEvents":
                        self.metadata[str(name)] = reader.value()
                        continue
                    found = True
                    reader.expect("[")
                    while reader.next_of("]"):
                        event = reader.value()
                        if isinstance(event, dict):
                            yield event
        except UserError as error:
            raise UserError(f"{self.path} is not read: {error}") from None
        except OSError as error:
            if not isinstance(error, gzip.BadGzipFile):
                raise
            raise UserError(f"{self.path} is not read: it is not what gzip writes") from None
        except (EOFError, zlib.error):
            raise UserError(
                f"{self.path} is not read: its packed data ends early or is damaged; write or copy it anew"
            ) from None
        except RecursionError:
            raise UserError(f"{self.path} is not read: its JSON is nested too deeply") from None
        except ValueError as error:
            raise UserError(f"{self.path} is not read: {error}") from None  # a number of thousands of digits
        if not found:
            raise UserError(f"{self.path} is no trace: it has no traceEvents")


@contextmanager
def _text(path: Path) -> Iterator[IO[str]]:
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # a pipe that nobody writes to must not make us wait
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise UserError("it is no regular file")
        with open(handle, "rb", closefd=False) as raw:
            packed = raw.peek(2)[:2] == b"\x1f\x8b"
            if packed != path.name.endswith(".gz"):
                raise UserError(f"it is {'' if packed else 'not '}packed by gzip: give it a name that says so")
            unpacked: Any = gzip.GzipFile(fileobj=raw) if packed else raw
            yield io.TextIOWrapper(unpacked, encoding="utf-8", errors="replace")
    finally:
        os.close(handle)


class _Reader:
    """JSON values out of a stream, one after the other."""

    def __init__(self, file: IO[str]) -> None:
        self.file, self.text, self.at, self.read = file, "", 0, 0
        self.decode = json.JSONDecoder(strict=False).raw_decode  # kernels' names may hold what JSON forbids

    def more(self, size: int = CHUNK) -> bool:
        """Read on; whether there was anything."""
        fresh = self.file.read(size)
        self.read += len(fresh)
        if self.read > MOST:
            raise UserError(f"it has more than {MOST / 2**20:g} MiB of JSON; trace fewer steps")
        self.text, self.at = self.text[self.at :] + fresh, 0
        return bool(fresh)

    def peek(self) -> str:
        """The next character that is no white space; nothing at the end."""
        while True:
            space = _SPACE.match(self.text, self.at)
            assert space is not None, "it matches nothing as well"
            self.at = space.end()
            if self.at < len(self.text):
                return self.text[self.at]
            if not self.more():
                return ""

    def expect(self, mark: str) -> None:
        found = self.peek()
        if found != mark:
            what = f"has {found!r} where {mark!r} belongs" if found else "ends in the middle: was its writer killed?"
            raise UserError(f"its JSON {what}")
        self.at += 1

    def next_of(self, end: str) -> bool:
        """Go to the next member of a list or mapping, past a comma; whether there is one before `end`."""
        found = self.peek()
        if found == ",":
            self.at += 1
            found = self.peek()
        if found == end:
            self.at += 1
            return False
        return True

    def value(self) -> Any:
        """The value that begins here."""
        self.peek()
        size = CHUNK
        while True:
            try:
                value, end = self.decode(self.text, self.at)
                length = end - self.at
                if end < len(self.text) or not self.more(size):  # a number may go on
                    self.at += length
                    return value
            except json.JSONDecodeError as error:
                cut = error.pos >= len(self.text) or error.msg.startswith("Unterminated")
                if len(self.text) - self.at > MOST_OF_ONE:
                    raise UserError(f"one value has more than {MOST_OF_ONE / 2**20:g} MiB") from None
                if not self.more(size):
                    what = "ends in the middle: was its writer killed?" if cut else f"is damaged: {error.msg}"
                    raise UserError(f"its JSON {what}") from None
            size *= 2
