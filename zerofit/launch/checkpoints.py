"""`zerofit checkpoint list | verify | show`: what a run's checkpoints are, read from their files; nothing changes."""

from __future__ import annotations

import os
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from tqdm import tqdm

from zerofit.checkpoint.commit import Best, read_best, unfinished
from zerofit.checkpoint.headers import read_header
from zerofit.checkpoint.manifest import NAME, read_manifest, step_name, step_of, steps, verify
from zerofit.checkpoint.outside import leading_out, shown
from zerofit.config.errors import UserError
from zerofit.config.strategy import ZERO_STAGE
from zerofit.launch import reference, rundir
from zerofit.plan.job import is_job
from zerofit.plan.spec import RunSpec
from zerofit.report import checkpoints as report
from zerofit.report.checkpoints import File, Listed, State

PATIENCE = 2.0
"""Seconds of hashing before a bar is shown."""


@dataclass(frozen=True)
class Named:
    """What a command was given."""

    spec: RunSpec | None
    """The run's; null for a checkpoint that lies elsewhere."""
    one: Path | None
    """The checkpoint that is asked for; null: all of the run's."""

    @property
    def checkpoints(self) -> dict[int, Path]:
        """The run's, by steps. Raises UserError where it has none."""
        assert self.spec is not None
        found = steps(self.spec.run_dir / "checkpoints")
        if not found:
            raise UserError(f"{os.path.relpath(self.spec.run_dir)} has no checkpoint yet")
        return found


def named(asked: Path) -> Named:
    """RUN, RUN@STEP or a checkpoint's directory. Raises UserError for other things; of a job it names the runs."""
    run, step = reference.split(asked)
    directory = asked.expanduser().absolute()
    if reference.is_run(run) or is_job(run):
        spec = rundir.load(run)
        if step is None:
            return Named(spec, None)
        one = spec.run_dir / "checkpoints" / step_name(step)
        if not one.is_dir():
            there = ", ".join(map(str, steps(one.parent))) or "none"
            raise UserError(f"{asked}: {run} has no checkpoint of step {step} (there are: {there})")
        return Named(spec, one)
    if directory.is_dir() and ((directory / NAME).exists() or step_of(directory) is not None):
        return Named(None, directory)
    return Named(rundir.load(asked), None)  # says why it is no run


def listing(asked: Path) -> str:
    """The table of a run's checkpoints; names and sizes of files are compared, contents are not. Raises UserError."""
    run = named(asked)
    if run.spec is None or run.one is not None:
        raise UserError(f"{asked} is one checkpoint: zerofit checkpoint show {asked}")
    notes = [f"names and sizes were compared; contents: zerofit checkpoint verify {asked}"]
    best, directory = None, run.spec.run_dir / "checkpoints"
    try:
        best = read_best(directory)
    except UserError as error:
        notes.append(str(error))
    cut_off = unfinished(directory)
    rows = [_row(step, path) for step, path in (steps(directory) if cut_off else run.checkpoints).items()]
    newest = max((row.step for row in rows if row.state == "complete"), default=None)
    rows = [_marked(row, run.spec, newest, best) for row in rows]
    rows += [_row(step, path) for step, path in cut_off.items()]
    return report.listing(rows, notes)


def _row(step: int, path: Path) -> Listed:
    facts, size = _facts(path), sum(file.size for file in _files(path))
    return Listed(step, size, _word(facts, "strategy"), _word(facts, "world_size"), _state(path))


def _marked(row: Listed, spec: RunSpec, newest: int | None, best: Best | None) -> Listed:
    marks = ("newest",) if row.step == newest else ()
    if best is None or row.step != best.step:
        return replace(row, marks=marks)
    return replace(row, marks=(*marks, "best"), value=_value(spec, best))


def check(asked: Path) -> int:
    """Hash what is asked for and print a line a checkpoint and fault. Returns 0, or 2 where any is damaged."""
    given = named(asked)
    paths = [given.one] if given.one is not None else list(given.checkpoints.values())
    damaged = 0
    with _bar(sum(file.size for path in paths for file in _files(path))) as bar:
        for path in paths:
            faults = verify(path, progress=bar)
            if not path.exists():  # a run that goes on has deleted it meanwhile
                continue
            damaged += bool(faults)
            files = _files(path)
            whole = f"whole: {len(files)} files, {report.amount(sum(file.size for file in files))}"
            for line in faults or [whole]:
                tqdm.write(f"{path.name}  {line}", file=sys.stdout)
    if damaged:
        print(f"{damaged} of {len(paths)} damaged", file=sys.stderr)
    return 2 if damaged else 0


def show(asked: Path) -> str:
    """One checkpoint: that of the step, or the newest complete one. Raises UserError."""
    given = named(asked)
    path, spec = given.one or _newest(given), given.spec
    state, facts, step = _state(path), _facts(path), step_of(path)
    strategy, of = _word(facts, "strategy"), f" of {spec.batches.total_steps}" if spec is not None else ""
    files = _files(path)
    rows = [
        ("checkpoint", os.path.relpath(path)),
        ("step", f"{_word(facts, 'step') if step is None else step}{of}"),
        ("state", f"{state} (names and sizes; contents: zerofit checkpoint verify {asked})"),
        ("strategy", strategy),
        ("ZeRO stage", str(ZERO_STAGE.get(strategy, "none"))),
        ("world size", _word(facts, "world_size")),
        ("written", _written(path)),
        ("size", f"{report.amount(sum(file.size for file in files))} in {len(files)} files"),
    ]
    if spec is not None:
        rows.append(("optimizer", f"{spec.recipe.optimizer.name}, peak lr {spec.lr:g}"))
        try:
            best = read_best(path.parent)
        except UserError:
            best = None
        if best is not None and best.step == step:
            rows.append(("best", _value(spec, best)))
    files = [File(shown(file.name), file.size, _holds(path / file.name)) for file in files]
    return report.whole(rows, files, _next(given, path, state))


def _newest(given: Named) -> Path:
    """The newest complete one by names and sizes, else the newest at all."""
    found = given.checkpoints
    complete = (path for path in reversed(found.values()) if _state(path) == "complete")
    return next(complete, found[max(found)])


def _state(path: Path) -> State:
    if not (path / NAME).exists():
        return "incomplete"
    return "damaged" if verify(path, contents=False) else "complete"


def _next(given: Named, path: Path, state: State) -> str:
    spec, step = given.spec, step_of(path)
    if spec is None or step is None:
        return f"zerofit train RECIPE init_from={os.path.relpath(path)}"
    run = os.path.relpath(spec.run_dir)
    if state != "complete":
        return f"zerofit checkpoint verify {run}"
    if step >= spec.batches.total_steps:
        return f"zerofit eval {run} --checkpoint {step}"
    last = step == max(given.checkpoints) and not rundir.has_finished(spec.run_dir)
    return f"zerofit train --resume {run if last else f'{run}@{step}'}"


def _files(path: Path) -> list[File]:
    """All files of a checkpoint, its manifest too; those that vanish meanwhile are left out."""
    found = []
    for file in sorted(path.rglob("*")):
        with suppress(FileNotFoundError):
            if file.is_file() or file.is_symlink():
                found.append(File(file.relative_to(path).as_posix(), file.lstat().st_size))
    return found


def _facts(path: Path) -> dict[str, Any]:
    try:
        return read_manifest(path).facts
    except UserError:
        return {}


def _word(facts: dict[str, Any], name: str) -> str:
    """A fact as one word; whoever wrote the manifest may have put anything there."""
    value = facts.get(name, "?")
    return shown(value) if isinstance(value, str) else str(value) if isinstance(value, int) else "?"


def _value(spec: RunSpec, best: Best) -> str:
    return f"{spec.recipe.best_metric} {best.value:.4f}"


def _written(path: Path) -> str:
    try:
        return datetime.fromtimestamp((path / NAME).stat().st_mtime).strftime("%Y-%m-%d %H:%M:%S")
    except OSError:
        return "never to its end"
    except (ValueError, OverflowError):
        return "at a time that no calendar has"


def _holds(path: Path) -> str:
    """Tensors, elements and dtypes of a safetensors file; nothing for other files."""
    if path.suffix != ".safetensors" or path.name in leading_out(path.parent):
        return ""
    try:
        tensors = read_header(path).values()
    except (UserError, OSError) as error:
        return str(error).removeprefix(f"{path} ")
    elements: Counter[str] = Counter()
    for tensor in tensors:
        elements[tensor.dtype] += tensor.elements
    kinds = ", ".join(f"{count:,} {dtype}" for dtype, count in sorted(elements.items()))
    return f"{len(tensors)} tensors, {elements.total():,} parameters: {kinds}"


@contextmanager
def _bar(total: int) -> Iterator[Any]:
    """A bar of bytes on a terminal, once it has taken PATIENCE; yields what is told of more bytes, from any thread."""
    lock = threading.Lock()
    shape = {"unit": "B", "unit_scale": True, "unit_divisor": 1024}
    with tqdm(total=total, delay=PATIENCE, disable=None, leave=False, **shape) as bar:

        def more(count: int) -> None:
            with lock:
                bar.update(count)

        yield more
