"""A comparison of runs: compare.json, compare.md and what the terminal shows of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from zerofit.plan.spec import Hardware
from zerofit.report.rows import Row
from zerofit.report.verdict import related, verdict

COMPARE_FILE = "compare.json"
NOTHING = "-"
Show = Callable[[Row], str]
Column = tuple[str, Show]


@dataclass(frozen=True)
class Comparison:
    """Runs of the same work."""

    recipe: str
    """Its name."""
    hardware: Hardware
    precision: str
    global_batch: int
    steps: int
    rows: tuple[Row, ...]
    """The first is the baseline."""
    notes: tuple[str, ...] = ()
    """In what the runs differ besides."""

    @property
    def limit_gib(self) -> float | None:
        """Memory of a card; null on a CPU."""
        return self.hardware.memory_gib if self.hardware.device == "cuda" else None

    def body(self) -> dict[str, Any]:
        """compare.json."""
        rows = related(self.rows)
        return {
            "format": 1,
            "recipe": self.recipe,
            "created": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "hardware": self.hardware.model_dump(mode="json", include={"device", "name", "count", "memory_gib"}),
            "precision": self.precision,
            "global_batch": self.global_batch,
            "steps": self.steps,
            "baseline": rows[0].label if rows else None,
            "limit_gib": self.limit_gib,
            "rows": [_rounded(asdict(row)) for row in rows],
            "verdict": self.said(rows),
        }

    def said(self, rows: Sequence[Row]) -> list[str]:
        """The verdict on the related rows, and the notes."""
        return [*verdict(rows, self.limit_gib), *(f"note: {note}" for note in self.notes)]


def write(comparison: Comparison, directory: Path) -> None:
    """compare.json and compare.md, whole or not at all."""
    for name, text in (
        (COMPARE_FILE, json.dumps(comparison.body(), indent=2) + "\n"),
        ("compare.md", markdown(comparison)),
    ):
        part = directory / f".{name}"
        part.write_text(text, encoding="utf-8")
        part.replace(directory / name)


# --- columns: a heading, and what a row shows under it


def _number(name: str, form: str) -> Show:
    def show(row: Row) -> str:
        value = vars(row)[name]
        return NOTHING if value is None else format(value, form)

    return show


def _rate(name: str) -> Show:
    def show(row: Row) -> str:
        value = vars(row)[name]
        return NOTHING if value is None else f"{value:,.{0 if value >= 1000 else 1}f}"

    return show


def _held(kind: str) -> Show:
    return lambda row: NOTHING if row.memory is None else _gib(row.memory[kind])


def _memory(name: str) -> Show:
    def show(row: Row) -> str:
        value = vars(row)[name]
        return NOTHING if value is None else _gib(value)

    return show


def _gib(value: float) -> str:
    return f"{value:.2f}" if value >= 0.995 or value == 0 else f"{value:.3f}"


def _peak(row: Row) -> str:
    """Of a run that ran out of memory, what it needed at least."""
    if row.needed_gib is not None:
        return f"> {_gib(row.needed_gib)}"
    return _memory("peak_allocated_gib")(row)


def _batch(row: Row) -> str:
    return NOTHING if row.micro_batch is None or row.accumulation is None else f"{row.micro_batch} x {row.accumulation}"


def _deviation(row: Row) -> str:
    return NOTHING if row.loss_deviation is None else f"{row.loss_deviation:.1e}" if row.loss_deviation else "0"


RUN: Column = ("run", lambda row: row.label)
STATUS: Column = ("status", lambda row: row.status)
PEAK: Column = ("peak", _peak)
HOST: Column = ("host", _memory("host_gib"))
SPEED: Column = ("samples/s", _rate("samples_s"))
EACH: Column = ("per GPU", _rate("samples_s_per_gpu"))
MFU: Column = ("MFU", _number("mfu", ".1%"))
TYPICAL: Column = ("p50 ms", _rate("step_ms_p50"))
SLOW: Column = ("p99 ms", _rate("step_ms_p99"))
SCALING: Column = ("scaling", _number("scaling_efficiency", ".0%"))
EXPOSED: Column = ("exposed comm.", _number("exposed_communication_share", ".0%"))
OPTIMIZER: Column = ("optimizer", _number("optimizer_share", ".0%"))
DATA: Column = ("data", _number("data_share", ".0%"))
LOSS: Column = ("loss off by", _deviation)
LARGEST: Column = ("largest micro-batch", _number("max_micro_batch", "d"))
PREDICTED: Column = ("predicted", _memory("predicted_gib"))
RESERVED: Column = ("reserved", _memory("peak_reserved_gib"))
TOKENS: Column = ("tokens/s", _rate("tokens_s"))
BATCH: Column = ("micro x acc.", _batch)

TABLES: tuple[tuple[str, tuple[Column, ...]], ...] = (
    ("memory per GPU, GiB (host: of all)", (PEAK, RESERVED, PREDICTED, HOST, LARGEST)),
    ("what the peak holds, GiB", tuple((kind, _held(kind)) for kind in ("weights", "gradients", "optimizer", "rest"))),
    ("speed", (SPEED, EACH, TOKENS, MFU, TYPICAL, SLOW, SCALING)),
    ("where a step goes, and its numbers", (BATCH, EXPOSED, OPTIMIZER, DATA, LOSS)),
)
IN_MARKDOWN = (PEAK, HOST, SPEED, EACH, MFU, TYPICAL, SLOW, SCALING, EXPOSED, OPTIMIZER, DATA, LOSS, LARGEST)


def _shown(rows: Sequence[Row], columns: Sequence[Column], limit: float | None) -> list[tuple[str, list[str]]]:
    """Headings with their cells; columns without a figure are left out. On a CPU a rank is no GPU."""
    found = [(heading, [show(row) for row in rows]) for heading, show in columns]
    kept = [(heading, cells) for heading, cells in found if any(cell != NOTHING for cell in cells)]
    return kept if limit is not None else [(heading.replace("GPU", "rank"), cells) for heading, cells in kept]


def terminal(comparison: Comparison, width: int) -> str:
    """Small tables, what did not run, and the verdict."""
    rows, limit = related(comparison.rows), comparison.limit_gib
    out = Console(file=StringIO(), width=width, highlight=False, color_system=None, markup=False, emoji=False)
    measured = [row for row in rows if row.status in ("ok", "out of memory")]
    for title, columns in TABLES:
        cells = _shown(measured, columns, limit)
        if not cells:
            continue
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False)
        table.add_column("run", overflow="fold", min_width=10)
        for heading, _ in cells:
            table.add_column(heading, justify="right", no_wrap=True)
        for row, *shown in zip(measured, *(column for _, column in cells), strict=True):
            table.add_row(row.label, *shown)
        out.print(title if limit is not None else title.replace("GPU", "rank"))
        out.print(table)
        out.print()
    for line in comparison.said(rows):
        out.print(line)
    assert isinstance(out.file, StringIO)
    return "\n".join(line.rstrip() for line in out.file.getvalue().splitlines())


def markdown(comparison: Comparison) -> str:
    """A table to be pasted, and the verdict."""
    rows, limit = related(comparison.rows), comparison.limit_gib
    devices = comparison.hardware.name
    head = (
        f"**{comparison.recipe}**: {comparison.steps} steps of {comparison.global_batch} samples, "
        f"{comparison.precision}, {devices}"
    )
    status = () if all(row.status == "ok" for row in rows) else (STATUS,)
    cells = _shown(rows, (RUN, *status, *IN_MARKDOWN), limit)
    headings = [{"peak": "peak GiB", "host": "host GiB"}.get(heading, heading) for heading, _ in cells]
    lines = [headings, ["---", *("---:" for _ in cells[1:])]]
    lines += [
        [cell.replace("|", "\\|") for cell in line] for line in zip(*(column for _, column in cells), strict=True)
    ]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return "\n".join([head, "", table, "", *(f"- {line}" for line in comparison.said(rows)), ""])


def _rounded(value: Any) -> Any:
    """Six significant digits are more than any clock gives; losses stay as they are."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {key: one if key == "loss" else _rounded(one) for key, one in value.items()}
    return value
