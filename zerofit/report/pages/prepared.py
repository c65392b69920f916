"""The page of prepared language data: what was read, what was dropped and why, and how long rows are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from zerofit.report.pages.charts import bars
from zerofit.report.pages.files import Read, parsed
from zerofit.report.pages.parts import Chart, Facts, Figure, Notes, Page, Part, Section, Table
from zerofit.report.pages.units import count, fixed, percent

NAMED = 4
"""Input files, at the top."""


class Rows(Read):
    """How many there were."""

    read: int
    kept: int
    dropped: int


class Usable(Read):
    """Of the rows that were kept."""

    assistant: int
    answer: int
    both: int


class File(Read):
    """One input file."""

    name: str
    rows: int
    kept: int
    forms: dict[str, int]
    dropped: dict[str, int]


class Example(Read):
    """A row, by its file and line."""

    source: str
    detail: str


class Drop(Read):
    """One reason."""

    words: str
    rows: int
    examples: tuple[Example, ...]


class Duplicates(Read):
    """Rows that repeat others."""

    exact: int
    near: int
    near_rule: str


class EvaluationFile(Read):
    """Questions that training is not to see, and the rows that share some."""

    name: str
    questions: int
    rows: int


class Overlap(Read):
    """With the evaluation sets."""

    evaluation: tuple[EvaluationFile, ...]
    run_words: int
    kept: bool


class Bin(Read):
    """Rows of `first` to below `to`."""

    to: int
    rows: int


class Lengths(Read):
    """Of the rows that were measured."""

    unit: str
    how: str
    context: int | None
    above_context: int | None
    rows: int
    mean: float
    percentiles: dict[str, float]
    bins: tuple[Bin, ...]


class Prepared(Read):
    """prepare.json."""

    rows: Rows
    usable: Usable
    files: tuple[File, ...]
    drops: tuple[Drop, ...]
    duplicates: Duplicates | None = None
    overlap: Overlap | None = None
    lengths: Lengths | None = None


def page(path: Path) -> Page:
    """The page of the prepare.json at `path`. Raises UserError where it is damaged."""
    found = parsed(path, Prepared)
    rows, usable, lengths = found.rows, found.usable, found.lengths
    figures = [
        Figure("Rows kept", count(rows.kept), "", f"of {rows.read:,} read"),
        Figure("Dropped", count(rows.dropped), "", percent(rows.dropped / rows.read if rows.read else None)),
        Figure("With an assistant turn", count(usable.assistant), "", "for sft"),
        Figure("With a checkable answer", count(usable.answer), "", "for grpo"),
    ]
    if lengths is not None and lengths.percentiles:
        longest = lengths.percentiles.get("100")
        figures.append(Figure("Median length", count(lengths.percentiles["50"]), lengths.unit, _longest(longest)))
    sections = [Section("rows", "Rows", [*_drops(found.drops), _files(found.files), *_shared(found)])]
    if lengths is not None and lengths.bins:
        sections.append(Section("lengths", "Lengths", _lengths(lengths)))
    about = ", ".join(one.name for one in found.files[:NAMED])
    more = f" and {len(found.files) - NAMED} more" if len(found.files) > NAMED else ""
    return Page("prepared data", path.parent.absolute().name, (f"of {about}{more}",), figures, sections)


def _longest(value: float | None) -> str:
    return "" if value is None else f"the longest {value:,.0f}"


def _drops(drops: Sequence[Drop]) -> list[Part]:
    told = [drop for drop in drops if drop.rows]
    if not told:
        return [Notes("Dropped rows", ["none"])]
    chart = bars("drops", "Dropped rows", "rows", [drop.words for drop in told], [("rows", [d.rows for d in told])])
    rows = [(drop.words, one.source, one.detail) for drop in told for one in drop.examples]
    return [chart, Table("The first of each", ("why", "where", "what"), rows, words=(0, 1, 2))]


def _files(files: Sequence[File]) -> Table:
    rows = [
        (
            one.name,
            ", ".join(f"{rows:,} {form}" for form, rows in one.forms.items()),
            count(one.rows),
            count(one.kept),
            count(sum(one.dropped.values())),
        )
        for one in files
    ]
    return Table("Files", ("file", "rows of which form", "read", "kept", "dropped"), rows, words=(0, 1))


def _shared(found: Prepared) -> list[Part]:
    parts: list[Part] = []
    if found.duplicates is not None:
        near = {"off": "not looked for", "keep": f"{found.duplicates.near:,}, kept"}
        said = near.get(found.duplicates.near_rule, f"{found.duplicates.near:,}, dropped")
        parts.append(Facts("Duplicates", [("exact", f"{found.duplicates.exact:,}, dropped"), ("near", said)]))
    overlap = found.overlap
    if overlap is not None and overlap.evaluation:
        rows = [(one.name, count(one.questions), count(one.rows)) for one in overlap.evaluation]
        note = f"Rows that ask a question of it, or share {overlap.run_words} words in a row with one; "
        note += "kept all the same." if overlap.kept else "dropped."
        parts.append(Table("Overlap with evaluation sets", ("set", "questions", "rows"), rows, note=note))
    return parts


def _lengths(lengths: Lengths) -> list[Part]:
    lows = [0, *(one.to for one in lengths.bins)]
    labels = [f"{low:,} to {one.to - 1:,}" for low, one in zip(lows, lengths.bins, strict=False)]
    note = lengths.how
    if lengths.context is not None:
        note += f"; the context is {lengths.context:,}, and {lengths.above_context or 0:,} rows are longer"
    chart: Chart = bars(
        "lengths",
        "Length of rows",
        "rows",
        labels,
        [("rows", [one.rows for one in lengths.bins])],
        wide=True,
        note=note,
    )
    points = [(f"{share} % of rows up to", count(value)) for share, value in lengths.percentiles.items()]
    return [chart, Facts(f"In {lengths.unit}", [("mean", fixed(lengths.mean, 1)), *points])]
