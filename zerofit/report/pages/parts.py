"""What pages are made of. Text is plain: the template escapes it; nothing here is HTML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

Tone = Literal["good", "bad", "plain"]


@dataclass(frozen=True)
class Figure:
    """One headline figure."""

    name: str
    value: str
    unit: str = ""
    note: str = ""


@dataclass(frozen=True)
class Notes:
    """A list of sentences."""

    kind: ClassVar[str] = "notes"
    title: str
    lines: Sequence[str]


@dataclass(frozen=True)
class Facts:
    """Names and values."""

    kind: ClassVar[str] = "facts"
    title: str
    rows: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Code:
    """Text to copy: a command, a file."""

    kind: ClassVar[str] = "code"
    title: str
    text: str
    file: str | None = None
    """Name to save it under; null: a command."""
    folded: bool = False
    """Shown on demand: it is long."""


@dataclass(frozen=True)
class Table:
    """Rows under headings; columns of numbers are aligned at their right."""

    kind: ClassVar[str] = "table"
    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    words: Sequence[int] = (0,)
    """Columns of words."""
    note: str = ""
    strong: Sequence[int] = ()
    """Rows that stand out."""
    links: Mapping[int, str] = field(default_factory=dict)
    """Relative addresses of rows' first cells."""
    wide: bool = True


@dataclass(frozen=True)
class Picture:
    """An image of the test."""

    source: str
    """data: address."""
    label: str
    predicted: str
    top: Sequence[tuple[str, str]]
    """(class, share) of the most probable."""
    right: bool


@dataclass(frozen=True)
class Pictures:
    """Some of them."""

    kind: ClassVar[str] = "pictures"
    title: str
    items: Sequence[Picture]
    note: str = ""


@dataclass(frozen=True)
class Piece:
    """A stretch of what a model wrote."""

    text: str
    thought: bool = False
    """Shown dimmed: it is of its reasoning."""


@dataclass(frozen=True)
class Writing:
    """A completion, what it answers, and what it is worth."""

    prompt: str
    pieces: Sequence[Piece]
    values: Sequence[tuple[str, str]]
    """Names and values: rewards, the right answer, tokens."""
    right: bool | None = None
    """Null: there is no right and wrong."""


@dataclass(frozen=True)
class Writings:
    """Some of them."""

    kind: ClassVar[str] = "writings"
    title: str
    items: Sequence[Writing]
    note: str = ""


@dataclass(frozen=True)
class Made:
    """A part that was made of what was told."""

    told: str
    source: str | None
    """data: address of its picture; null where there is none."""
    valid: bool
    reason: str
    """Why it is not, or why a value is missing; empty where neither is so."""
    values: Sequence[tuple[str, str]]
    """Names and values: how far it is from the true part."""
    commands: str
    """The text that it is made of, or would be."""


@dataclass(frozen=True)
class Shown:
    """A true part, and what was made of it."""

    name: str
    caption: str
    truth: str | None
    """data: address of its picture."""
    commands: str
    made: Sequence[Made]


@dataclass(frozen=True)
class Sheet:
    """Some of them."""

    kind: ClassVar[str] = "sheet"
    title: str
    items: Sequence[Shown]
    note: str = ""


@dataclass(frozen=True)
class Key:
    """An entry of a chart's legend, which shows and hides its traces."""

    name: str
    colour: int
    look: Literal["line", "mark", "area"]
    style: str = "solid"
    """Of a line, Plotly's dash; of an area, its pattern."""
    traces: Sequence[int] = ()


@dataclass(frozen=True)
class Chart:
    """A chart: what Plotly draws, without colours, and the same in words and in a table."""

    kind: ClassVar[str] = "chart"
    name: str
    """Unique in its page."""
    title: str
    unit: str
    """Of what is upwards."""
    summary: str
    """For those who cannot see it."""
    data: Sequence[dict[str, Any]]
    """Plotly's traces; meta.colour is a number of the palette."""
    layout: dict[str, Any]
    table: Table
    keys: Sequence[Key] = ()
    note: str = ""
    height: int = 300
    wide: bool = False


Part = Notes | Facts | Code | Table | Pictures | Writings | Sheet | Chart


@dataclass(frozen=True)
class Section:
    """A tab."""

    name: str
    title: str
    parts: Sequence[Part]
    note: str = ""


@dataclass(frozen=True)
class Page:
    """All of it."""

    what: str
    """Run, comparison, ..."""
    title: str
    subtitle: Sequence[str]
    """Lines."""
    figures: Sequence[Figure]
    sections: Sequence[Section]
    status: tuple[str, Tone] | None = None
    alerts: Sequence[tuple[str, str]] = ()
    """What went wrong: a line, and more of it (may be empty)."""
