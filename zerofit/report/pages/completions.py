"""What the policy of a GRPO run wrote: the best and the worst of its newest generation, with their rewards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from zerofit.report.pages.files import finite
from zerofit.report.pages.parts import Section, Writing, Writings
from zerofit.report.pages.units import NONE, count, number
from zerofit.report.pages.writing import evenly_drawn, pieces, rows, shown

DIRECTORY = "completions.parquet"
"""Of a file for each step that is logged."""
COLUMNS = ("step", "prompt", "completion", "reward")
EACH = 4
"""Completions that are shown of the best, and of the worst."""
PART = "reward/"


def section(directory: Path) -> Section | None:
    """The tab of a run's page; null where it kept no completions."""
    found = [row for row in rows(directory / DIRECTORY, COLUMNS) if finite(row["reward"]) is not None]
    if not found:
        return None
    note = f"Of the {len(found):,} completions that were kept of step {count(found[0]['step'])}; reasoning is grey."
    if len({row["reward"] for row in found}) == 1:
        alike = Writings("All have the same reward", [_writing(row) for row in evenly_drawn(found, EACH)])
        return Section("completions", "Completions", [alike], note)
    ranked = sorted(found, key=lambda row: -float(row["reward"]))
    best = ranked[: min(EACH, (len(ranked) + 1) // 2)]
    worst = ranked[len(best) :][-EACH:][::-1]
    parts = [
        Writings("Best rewards", [_writing(row) for row in best]),
        Writings("Worst rewards", [_writing(row) for row in worst]),
    ]
    return Section("completions", "Completions", parts, note)


def _writing(row: dict[str, Any]) -> Writing:
    parts = [(name.removeprefix(PART), _number(row[name])) for name in row if name.startswith(PART)]
    tokens = count(finite(row.get("tokens"))) + ("" if row.get("stopped") in (True, None) else ", cut off")
    answer = row.get("answer")
    values = [
        ("reward", _number(row["reward"])),
        *parts,
        ("advantage", _number(row.get("advantage"))),
        *([] if answer is None else [("right answer", str(answer))]),
        ("tokens", tokens),
    ]
    return Writing(shown(str(row["prompt"])), pieces(str(row["completion"])), [v for v in values if v[1] != NONE])


def _number(value: Any) -> str:
    return number(finite(value))
