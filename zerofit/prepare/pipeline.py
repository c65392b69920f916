"""`zerofit prepare`: from rows of many forms to shards of one. One pass; memory holds hashes of rows, not rows."""

from __future__ import annotations

import importlib.metadata
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from zerofit.config.errors import UserError
from zerofit.prepare.duplicates import Duplicates, NearDuplicates
from zerofit.prepare.figures import Figures, File
from zerofit.prepare.forms import FORMS, example_of, nearest
from zerofit.prepare.lengths import Ruler, Size, ruler_of
from zerofit.prepare.mapping import check_fields, known_form
from zerofit.prepare.options import Options
from zerofit.prepare.overlap import Evaluation
from zerofit.prepare.progress import RowsProgress
from zerofit.prepare.reading import read
from zerofit.prepare.rows import BAD, WORDS, Broken, Example, Row, Unusable, shown
from zerofit.prepare.sources import HUB, Source, find
from zerofit.prepare.summary import summary
from zerofit.prepare.writing import Shards, sha256, staged, write_json

STRANGERS = 100
"""Rows of no known form, from the first on, after which a file is refused."""
BATCH = 256
"""Rows whose tokens are counted together, at most."""
BATCH_CHARACTERS = 4 * 2**20
"""Characters of theirs, about: a token in memory is larger than its text."""
SCHEMA = 1
"""Of manifest.json and of the shards' columns."""
LIBRARIES = ("pyarrow", "datasketch", "tokenizers")
"""Whose versions decide about bytes."""


@dataclass(frozen=True)
class Candidate:
    """A row that may be kept."""

    file: File
    source: str
    form: str
    example: Example


def prepare(options: Options) -> None:
    """Write the output, and say what was done. Raises UserError, and then nothing is left behind."""
    options.check()
    options = replace(options, output=Path(os.path.abspath(options.output.expanduser())))
    sources = find(options.inputs)
    ruler = ruler_of(options.tokenizer)
    evaluation, asked, tests = _evaluation(options.against, options.fields)
    with closing(RowsProgress()) as progress, staged(options.output) as staging:
        shards = Shards(staging, options.shard_rows)
        course = Course(options, ruler, evaluation, shards)
        for source in sources:
            course.file(source, progress)
        course.finish()
        shards.close()
        figures = course.figures
        if not figures.kept:
            raise UserError(_nothing_left(figures))
        record = figures.record(options, ruler, asked, shards.written)
        write_json(staging / "prepare.json", record)
        manifest = _manifest(options, ruler, {"inputs": sources, "against": tests}, record)
        write_json(staging / "manifest.json", manifest)
    print(summary(options, record, progress.rate))


class Course:
    """Takes rows in, one after the other, and decides about each."""

    def __init__(self, options: Options, ruler: Ruler, evaluation: Evaluation, shards: Shards) -> None:
        self.options, self.ruler, self.evaluation, self.shards = options, ruler, evaluation, shards
        self.figures = Figures()
        self._strange = ""
        self._duplicates = Duplicates()
        self._near = NearDuplicates() if options.near_duplicates != "off" else None
        self._waiting: list[Candidate] = []
        self._characters = 0

    def file(self, source: Source, progress: RowsProgress) -> None:
        """All rows of a source."""
        file = File(source.name, source.format)
        self.figures.files.append(file)
        unread = ""
        for item in read(source):
            progress.add()
            file.rows += 1
            if isinstance(item, Broken):
                unread = unread or f"{item.source}: {item.why}"
                self._left_out(file, item.source, Unusable("malformed", item.why))
                continue
            if self.options.fields and file.rows == 1 + file.dropped["malformed"]:
                check_fields(item.value, self.options.fields, source.name)
            try:
                self._row(file, item)
            except Unusable as why:
                if why.reason == "unknown form":
                    self._stranger(file, item.value)
                self._left_out(file, item.source, why)
        if file.rows and file.rows == file.dropped["malformed"]:
            raise UserError(f"{source.name}: no row of it can be read ({unread})")
        if file.rows and not file.forms:
            raise UserError(self._strange)

    def finish(self) -> None:
        """Write what still waits."""
        self._weigh()

    def _row(self, file: File, row: Row) -> None:
        form, fields = known_form(row.value, self.options.fields)
        file.forms[form] += 1
        example = example_of(form, fields, self.options.system)
        first = self._duplicates.of(example, row.source)
        if first is not None:
            raise Unusable("duplicate", f"the same as {first}")
        shared = self.evaluation.shared(example)
        if shared is not None:
            how = self.figures.overlaps(row.source, shared)
            if not self.options.keep_overlap:
                raise Unusable("overlap", how)
        if self._near is not None:
            other = self._near.of(example, row.source)
            if other is not None:
                self.figures.near.add(row.source, f"nearly the same as {other}")
                if self.options.near_duplicates == "drop":
                    raise Unusable("near duplicate", f"nearly the same as {other}")
        self._waiting.append(Candidate(file, row.source, form, example))
        self._characters += len(example.text)
        if len(self._waiting) == BATCH or self._characters > BATCH_CHARACTERS:
            self._weigh()

    def _weigh(self) -> None:
        """Measure the rows that wait, and write those that fit."""
        sizes = self.ruler.measure([one.example for one in self._waiting], self.options.context)
        for one, size in zip(self._waiting, sizes, strict=True):
            self.figures.measure(size)
            try:
                self._fits(one.example, size)
            except Unusable as why:
                self.figures.drop(one.file, one.source, why.reason, why.detail)
                continue
            self.shards.add(one.example, one.source)
            self.figures.keep(one.file, one.form, one.example)
        self._waiting, self._characters = [], 0

    def _fits(self, example: Example, size: Size) -> None:
        context = self.options.context
        if context is None or size.length < context:
            return
        if size.opening >= context:
            what = "before the first assistant turn" if example.taught else "of the prompt"
            raise Unusable("all masked", f"{size.opening:,} tokens {what}, and the context is {context:,}")
        if size.length > context and self.options.drop_long:
            raise Unusable("too long", f"{size.length:,} tokens, and the context is {context:,}")

    def _left_out(self, file: File, source: str, why: Unusable) -> None:
        if self.options.on_bad_row == "fail" and why.reason in BAD:
            raise UserError(f"{source}: {why.detail} (--on-bad-row skip leaves such rows out)")
        self.figures.drop(file, source, why.reason, why.detail)

    def _stranger(self, file: File, value: Any) -> None:
        names = list(map(str, value)) if isinstance(value, dict) else []
        if file.forms:
            return
        if file.dropped["unknown form"] == 0:
            has = f"it has the fields {', '.join(names)}; {nearest(names)}" if names else "its rows have no fields"
            self._strange = shown(f"{file.name} is of no known form: {has}")
        if file.dropped["unknown form"] + 1 == STRANGERS or self.options.on_bad_row == "fail":
            raise UserError(self._strange)


def _evaluation(against: Sequence[str], mapping: Mapping[str, str]) -> tuple[Evaluation, dict[str, int], list[Source]]:
    """The questions of `--against`, how many rows each file has, and the files."""
    sources = find(against) if against else []
    asked: Counter[str] = Counter()

    def examples() -> Iterator[tuple[str, Example]]:
        for source in sources:
            for item in read(source):
                if isinstance(item, Broken):
                    raise UserError(f"--against: {item.source}: {item.why}")
                try:
                    form, fields = known_form(item.value, mapping)
                    example = FORMS[form].read(fields)
                except Unusable as why:
                    if why.reason == "empty":
                        continue
                    raise UserError(f"--against: {item.source}: {why.detail}") from None
                asked[source.name] += 1
                yield item.source, example
            if not asked[source.name]:
                raise UserError(f"--against: {source.name} asks nothing")

    return Evaluation(examples()), asked, sources


def _manifest(options: Options, ruler: Ruler, files: dict[str, list[Source]], record: dict[str, Any]) -> dict[str, Any]:
    """What was made of what, and what came of it."""
    versions = {name: importlib.metadata.version(name) for name in ("zerofit", *LIBRARIES)}
    return {
        "schema": SCHEMA,
        "columns": ["messages", "prompt", "answer", "tools", "source"],
        "versions": versions,
        "options": options.record(),
        **{role: _hashes(sources) for role, sources in files.items()},
        "tokenizer": ruler.hashes,
        "rows": record["rows"],
        "usable": record["usable"],
        "shards": record["shards"],
    }


def _hashes(sources: Sequence[Source]) -> list[dict[str, Any]]:
    """Of files, an archive once; a data set of the hub has its name alone."""
    hashes = {source.path: sha256(source.path) for source in sources if source.format != HUB}
    return [{"name": source.name, "sha256": hashes.get(source.path)} for source in sources]


def _nothing_left(figures: Figures) -> str:
    if not figures.rows:
        return f"there is no row in {', '.join(file.name for file in figures.files[:5])}"
    parts = [f"{drop.rows:,} {WORDS[reason]}" for reason, drop in figures.drops.items() if drop.rows]
    first = next(drop.examples[0] for drop in figures.drops.values() if drop.rows)
    return f"no row is left of {figures.rows:,}: {', '.join(parts)}; the first: {first['source']}: {first['detail']}"
