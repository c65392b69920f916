"""An evaluation as it goes on: prompts.parquet, and a parquet file for each part of its problems that is done.

A part is there whole or not at all, and says under which settings it was made; whoever is killed leaves parts undone.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Generic

import pyarrow as pa
import pyarrow.parquet as pq

from zerofit.config.errors import UserError
from zerofit.measure.parquet_rows import Form, Row, read_about

PARTS = "parts"
PROMPTS = "prompts.parquet"


@dataclass(frozen=True)
class Prompt:
    """A problem as the model gets it."""

    problem: str
    """Its name."""
    text: str
    tokens: list[int]
    gold: str


@dataclass(frozen=True)
class Part(Generic[Row]):
    """Problems that are done."""

    rows: list[Row]
    seconds: float
    """What a rank took for it."""
    ranks: int
    """How many ranks were at work."""


def write_prompts(directory: Path, prompts: Sequence[Prompt]) -> None:
    """Whole or not at all."""
    schema = pa.schema(
        [("problem", pa.string()), ("text", pa.string()), ("tokens", pa.list_(pa.int64())), ("gold", pa.string())]
    )
    partial = directory / f"{PROMPTS}.partial"
    pq.write_table(pa.Table.from_pylist([asdict(one) for one in prompts], schema=schema), partial)
    os.replace(partial, directory / PROMPTS)


def read_prompts(directory: Path) -> list[Prompt]:
    """All of them, in order."""
    rows: list[dict[str, Any]] = pq.read_table(directory / PROMPTS).to_pylist()
    return [Prompt(**row) for row in rows]


class Parts(Generic[Row]):
    """The parts of an evaluation of `count` problems, `per_part` in each, made under the settings of a digest."""

    def __init__(self, form: Form[Row], directory: Path, count: int, per_part: int, settings: str) -> None:
        self.form = form
        self.directory = directory / PARTS
        self.settings = settings
        self.problems = [range(start, min(start + per_part, count)) for start in range(0, count, per_part)]

    def path(self, number: int) -> Path:
        """Where a part lies, or will."""
        return self.directory / f"part-{number:05d}.parquet"

    def done(self) -> list[int]:
        """Numbers of those that are there."""
        return [number for number in range(len(self.problems)) if self.path(number).exists()]

    def take_stock(self) -> list[int]:
        """Numbers of those that are to be made; what is damaged, or was made under other settings, is removed."""
        self.directory.mkdir(exist_ok=True)
        for number in self.done():
            try:
                fitting = read_about(self.path(number)).get("settings") == self.settings
                self.read(number)
            except (UserError, KeyError, ValueError):
                fitting = False
            if not fitting:
                self.path(number).unlink()
        done = set(self.done())
        return [number for number in range(len(self.problems)) if number not in done]

    def write(self, number: int, part: Part[Row]) -> None:
        """Keep a part."""
        about = {"settings": self.settings, "seconds": f"{part.seconds:.3f}", "ranks": str(part.ranks)}
        self.form.write(self.path(number), part.rows, about)

    def read(self, number: int) -> Part[Row]:
        """A part. Raises UserError where it is damaged."""
        about = read_about(self.path(number))
        return Part(self.form.read(self.path(number)), float(about["seconds"]), int(about["ranks"]))

    def all(self) -> tuple[list[Row], float]:
        """The rows of all parts, and the seconds that they took."""
        made = [self.read(number) for number in range(len(self.problems))]
        return [row for part in made for row in part.rows], sum(part.seconds / part.ranks for part in made)
