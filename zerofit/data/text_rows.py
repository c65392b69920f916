"""Rows of text, of any source, in one form: turns with an answer, or a document."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from zerofit.config.errors import UserError
from zerofit.config.text import Text
from zerofit.data import arithmetic
from zerofit.data.splits import SplitName
from zerofit.prepare.forms import HALF, example_of, recognise
from zerofit.prepare.reading import read
from zerofit.prepare.rows import Broken, Example, Message, Row, Unusable, shown
from zerofit.prepare.sources import HUB, Source, find

REMEDY = "`zerofit prepare` leaves such rows out"


@dataclass(frozen=True)
class TextRow:
    """A row of a source."""

    where: str
    """`file:line`."""
    example: Example
    """Its turns and its answer; of a document no turns."""
    fields: Mapping[str, Any]
    """All that the source says of it."""

    def line(self) -> str:
        """As JSON, on a line."""
        turns, one = [list(message) for message in self.example.messages], self.example
        return json.dumps([self.where, turns, one.answer, one.tools, dict(self.fields)], default=str)


def row_of(line: str) -> TextRow:
    """The row that `TextRow.line` wrote."""
    where, turns, answer, tools, fields = json.loads(line)
    return TextRow(where, Example(tuple(Message(*turn) for turn in turns), answer, tools), fields)


Item = TextRow | None
"""A row, or null for one that has nothing to learn from."""


def sources_of(data: Text) -> dict[SplitName, list[Source]]:
    """The files of each split that the recipe names. Raises UserError where one is not there."""
    paths: dict[SplitName, str | None] = {
        "train": data.path,
        "validation": data.validation_path,
        "test": data.test_path,
    }
    fields = {"train": "path", "validation": "validation_path", "test": "test_path"}
    found: dict[SplitName, list[Source]] = {}
    for split, path in paths.items():
        if path is None:
            continue
        try:
            found[split] = find([path])
        except UserError as error:
            raise UserError(f"data.{fields[split]}: {error}") from None
    return found


def arithmetic_rows(data: Text, seed: int) -> dict[SplitName, list[TextRow]]:
    """The embedded problems. Raises UserError where the range of operands has too few."""
    try:
        train, test = arithmetic.split(seed, data.problems, data.test_problems, data.largest, data.estimates)
    except UserError as error:
        raise UserError(f"data: {error}") from None
    return {
        "train": [_problem(one, f"arithmetic train:{n}", data.system) for n, one in enumerate(train, start=1)],
        "test": [_problem(one, f"arithmetic test:{n}", data.system) for n, one in enumerate(test, start=1)],
    }


def _problem(one: arithmetic.Problem, where: str, system: str | None) -> TextRow:
    turns = (Message("user", one.question), Message("assistant", one.completion))
    opening = () if system is None else (Message("system", system),)
    return TextRow(where, Example((*opening, *turns), str(one.answer)), one.row())


def rows(source: Source, system: str | None) -> Iterator[Item]:
    """The rows of dialogues or questions in a file. Raises UserError at one that cannot be used."""
    for item in _read(source):
        try:
            form, fields = recognise(item.value)
            example = example_of(form, fields, system)
        except Unusable as why:
            if why.reason == "no target":
                yield None
                continue
            raise UserError(f"{item.source}: {why.detail}; {REMEDY}") from None
        yield TextRow(item.source, example, fields)


def documents(source: Source, system: str | None) -> Iterator[Item]:
    """The texts in a file: those of the field `text`. Raises UserError where a row has none."""
    for item in _read(source):
        text = item.value.get("text") if isinstance(item.value, dict) else item.value
        if not isinstance(text, str):
            names = ", ".join(map(str, item.value)) if isinstance(item.value, dict) else "no fields"
            raise UserError(
                shown(f"{item.source}: source documents reads the field text, and the row has {names}; use source rows")
            )
        if HALF.search(text):
            raise UserError(f"{item.source}: it holds half a character (a lone surrogate); {REMEDY}")
        yield TextRow(item.source, Example(()), {"text": text}) if text.strip() else None


READERS: dict[str, Callable[[Source, str | None], Iterator[Item]]] = {"rows": rows, "documents": documents}
"""By `data.source`."""


def _read(source: Source) -> Iterator[Row]:
    try:
        for item in read(source):
            if isinstance(item, Broken):
                raise UserError(f"{item.source}: {item.why}; {REMEDY}")
            yield item
    except OSError as error:
        raise UserError(f"{source.name} cannot be read: {error.strerror or error}") from None


def stamp(source: Source) -> list[Any]:
    """What changes when a file does. A data set of the hub counts by its name alone."""
    if source.format == HUB:
        return [source.name]
    found = source.path.stat()
    return [source.name, found.st_size, found.st_mtime_ns]
