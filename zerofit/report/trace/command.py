"""`zerofit trace`: one trace, two beside each other, all ranks in one file, or a gate."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from zerofit.config.errors import UserError
from zerofit.report.page import write_page
from zerofit.report.trace import compare, cpu, gpu
from zerofit.report.trace.body import Analysis
from zerofit.report.trace.files import is_run, opened, run_traces
from zerofit.report.trace.gate import FAILED, Gate, parse
from zerofit.report.trace.merge import merge as write_merged
from zerofit.report.trace.scan import scan_all
from zerofit.report.trace.table import table
from zerofit.report.trace.words import described

FILE = "trace.json"


def trace(
    sources: Sequence[Path], *, output: Path | None = None, merge: Path | None = None, fail_if: Sequence[str] = ()
) -> int:
    """Say what one trace says, or what differs between two; the exit code: 3 where a gate holds, for the last of them.

    Raises UserError where there is nothing to analyse, or what is asked for is not possible.
    """
    gates = [parse(text) for text in fail_if]
    if len(sources) > 2:
        raise UserError(f"trace takes one source, or two to compare, not {len(sources)}")
    if merge is not None and len(sources) > 1:
        raise UserError("--merge is for the ranks of one source; name one")
    found = [analyse(source, merge) for source in sources]
    if len(found) == 1:
        print(table(found[0]))
        target, body = output or _of_run(sources[0]), found[0].body(str(sources[0]))
    else:
        for letter, one in zip("AB", found, strict=True):
            print(f"{letter}: {table(one)}\n")
        print(compare.table(*found))
        target, body = output, compare.body(found[0], found[1], (str(sources[0]), str(sources[1])))
    if target is not None:
        _write(target, body)
        print(f"\nwritten: {os.path.relpath(target)}")
        if output is None:
            _renew_page(sources[0])
    if merge is not None:
        print(f"all ranks in one trace: {os.path.relpath(merge)}, for https://ui.perfetto.dev")
    return _judged(gates, found[-1])


def analyse(source: Path, merge: Path | None = None) -> Analysis:
    """What a run's, a directory's or an archive's traces say; with `merge` they are written to that file as well.

    Raises UserError where there are none or they cannot be analysed.
    """
    with opened(source) as paths, _progress(len(paths) * (2 if merge is None else 3)) as step:
        scanned = scan_all(paths, step)
        if merge is not None:
            write_merged(scanned, merge, step)
        found = gpu.analyse(scanned, step) if scanned.on_gpu else cpu.analyse(scanned, step)
        return described(replace(found, problems=scanned.problems, world_size=scanned.world_size))


def _renew_page(run: Path) -> None:
    """The run's page, which shows what was found; where it cannot be made that is a line."""
    try:
        print(f"page: {os.path.relpath(write_page(run))}")
    except UserError as error:
        print(f"no page: {error}")


def _judged(gates: Sequence[Gate], found: Analysis) -> int:
    code = 0
    for gate in gates:
        held = gate.held_by(found)
        if held:
            code = FAILED
            print(gate.said(held), file=sys.stderr)
    return code


def _of_run(source: Path) -> Path | None:
    """Where a run's analysis goes; nowhere of its own for others."""
    return run_traces(source) / FILE if source.is_dir() and is_run(source) else None


def _write(path: Path, body: dict[str, Any]) -> None:
    # Whole or not at all: the page may be made at any time.
    part = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        part.write_text(json.dumps(body, indent=1) + "\n", encoding="utf-8")
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def _progress(total: int) -> Iterator[Callable[[], None]]:
    """A bar on a terminal, nothing elsewhere."""
    with tqdm(
        total=total,
        file=sys.stderr,
        disable=not sys.stderr.isatty(),
        leave=False,
        bar_format="{percentage:3.0f}%|{bar}| traces, {elapsed}<{remaining}",
    ) as bar:
        yield lambda: bar.update() and None
