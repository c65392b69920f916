"""One HTML file that shows what a directory holds: `write_page(directory)`. It is whole in itself and loads nothing.

A new kind of page is one file in `pages` and a line in PAGES.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from zerofit.config.errors import UserError
from zerofit.report.pages import comparison, evaluation, job, prepared, run, shapes, trace
from zerofit.report.pages.document import render
from zerofit.report.pages.files import PAGE
from zerofit.report.pages.parts import Page

PAGES: dict[str, Callable[[Path], Page]] = {
    "run.json": lambda file: run.page(file.parent),
    "job.json": lambda file: job.page(file.parent),
    "compare.json": lambda file: comparison.page(file.parent),
    "prepare.json": prepared.page,
    "evaluation.json": lambda file: (shapes if file.with_name(shapes.ROWS).is_file() else evaluation).page(file),
    "trace.json": trace.page,
    "profile/trace.json": trace.page,
}
"""What is looked for in a directory, first to last, and what makes the page of it."""


def write_page(source: Path, output: Path | None = None) -> Path:
    """Write the page of a directory, or of a trace's file, to `output` (null: report.html in the directory).

    Returns its path. Raises UserError where there is nothing to show, or something damaged.
    """
    made, path = _made(source)
    return write(made, output or path)


def write(made: Page, path: Path) -> Path:
    """Write a page, whole or not at all; its path."""
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        part.write_text(render(made), encoding="utf-8")
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return path


def _made(source: Path) -> tuple[Page, Path]:
    if source.is_dir():
        for name, make in PAGES.items():
            if (source / name).is_file():
                return make(source / name), source / PAGE
        raise UserError(f"{source} has nothing to show: none of {', '.join(PAGES)}")
    if not source.is_file():
        raise UserError(
            f"{source} does not exist: name the directory of a run, a job, a comparison, an evaluation or prepared data"
        )
    if source.suffix != ".json":
        raise UserError(f"{source} is not shown: name a directory, or the .json file of a trace")
    if source.name in PAGES:
        return PAGES[source.name](source), source.parent / PAGE
    return trace.page(source), source.with_suffix(".html")
