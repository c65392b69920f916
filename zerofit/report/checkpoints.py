"""Checkpoints in the terminal: a table of a run's, and one of them in full. Everything is given, nothing is read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

State = Literal["complete", "damaged", "incomplete"]
GIB = 2**30


@dataclass(frozen=True)
class Listed:
    """One checkpoint of a run."""

    step: int
    size: int
    """Bytes."""
    strategy: str
    world_size: str
    state: State
    marks: tuple[str, ...] = ()
    """`newest`, `best`."""
    value: str = ""
    """`evaluate.best_metric` and its value, where it is known."""


@dataclass(frozen=True)
class File:
    """One file of a checkpoint."""

    name: str
    size: int
    """Bytes."""
    holds: str = ""
    """Parameters and dtypes, where its header says so."""


def listing(rows: Sequence[Listed], notes: Sequence[str] = ()) -> str:
    """A line a checkpoint, under headings; then what is to be said besides."""
    cells = [("step", "GiB", "strategy", "ranks", "state", "", "")]
    for row in rows:
        marks = ", ".join(row.marks)
        cells.append(
            (str(row.step), gib(row.size), row.strategy, row.world_size, row.state, marks, row.value),
        )
    widths = [max(len(line[column]) for line in cells) for column in range(len(cells[0]))]
    right = (0, 1, 3)
    lines = []
    for line in cells:
        aligned = [
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        lines.append("  ".join(aligned).rstrip())
    return "\n".join([*lines, *notes])


def whole(facts: Sequence[tuple[str, str]], files: Sequence[File], after: str) -> str:
    """One checkpoint: its facts, its files, and the command that comes `after`."""
    width = max(len(name) for name, _ in facts)
    lines = [f"{name:{width}}  {value}" for name, value in facts]
    longest = max((len(file.name) for file in files), default=0)
    lines += ["files" if files else "no files"]
    lines += [f"  {file.name:{longest}}  {amount(file.size):>10}  {file.holds}".rstrip() for file in files]
    return "\n".join([*lines, f"{'next':{width}}  {after}"])


def gib(size: int) -> str:
    """Bytes in GiB; two digits of what is less than one."""
    value = size / GIB
    return f"{value:.2f}" if value >= 1 or value == 0 else f"{value:.2g}"


def amount(size: int) -> str:
    """Bytes in B, KiB, MiB or GiB."""
    for unit, bytes_ in (("GiB", GIB), ("MiB", 2**20), ("KiB", 2**10)):
        if size >= bytes_:
            return f"{size / bytes_:.1f} {unit}"
    return f"{size} B"
