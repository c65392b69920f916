"""`zerofit compare`: the same work under each strategy, one run after another, and what each of them took.

`zerofit compare RUN RUN ...` is the same from runs that are there.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from zerofit.config.errors import UserError
from zerofit.config.load import load_job
from zerofit.config.schema import Recipe
from zerofit.launch import pages, rundir
from zerofit.launch.environment import outer_world
from zerofit.launch.failure import INTERRUPTED
from zerofit.launch.reference import is_run
from zerofit.plan.auto import settled_strategy
from zerofit.plan.cap import capped
from zerofit.plan.hardware import detect
from zerofit.plan.precision import resolve_precision
from zerofit.plan.strategy import resolve_strategy
from zerofit.prove.cases import Case, cases
from zerofit.prove.common import common
from zerofit.prove.runs import Interrupted, Work
from zerofit.prove.work import differences
from zerofit.report.comparison import Comparison, terminal, write
from zerofit.report.rows import Row, row_of

STRATEGIES = "ddp,zero2,zero3,fsdp2"
STEPS = 30
LEAST = 3
"""Steps of a run in which one may warm up, one be timed and one be traced."""
WIDTH = 100


def compare(
    words: Sequence[str],
    *,
    strategies: str | None = None,
    gpus: str | None = None,
    steps: int | None = None,
    max_batch: bool = False,
    profile: bool = True,
    stage: int | None = None,
    output: Path | None = None,
) -> tuple[int, Path]:
    """A recipe and overrides, or runs: as `compare_strategies` or `compare_runs`."""
    if not any(is_run(Path(word)) for word in words):
        return compare_strategies(
            words[0],
            words[1:],
            strategies=strategies or STRATEGIES,
            gpus=gpus,
            steps=STEPS if steps is None else steps,
            max_batch=max_batch,
            profile=profile,
            stage=stage,
            output=output,
        )
    options = {"--strategies": strategies, "--gpus": gpus, "--steps": steps, "--stage": stage}
    given = [name for name, value in options.items() if value is not None] + ["--max-batch"] * max_batch
    if given:
        raise UserError(f"{given[0]} is for a recipe, which is run, and these are runs that are there: leave it out")
    return compare_runs([Path(word) for word in words], output=output)


def compare_strategies(
    source: str,
    overrides: Sequence[str] = (),
    *,
    strategies: str = STRATEGIES,
    gpus: str | None = None,
    steps: int = STEPS,
    max_batch: bool = False,
    profile: bool = True,
    stage: int | None = None,
    output: Path | None = None,
) -> tuple[int, Path]:
    """Run the recipe `source` under each strategy on each number of ranks. Returns the exit code and the directory.

    Of a recipe with stages number `stage`, from 1, as it would be without those before it.

    0 where at least one run is ok, else 1; of a signal that ended it, its own. Raises UserError, before anything is
    written, for what no strategy could do.
    """
    from zerofit.tasks import TASKS

    if outer_world(os.environ) is not None:
        raise UserError("compare is several runs, and an outer launcher's processes live for one: run it without one")
    if steps < LEAST:
        raise UserError(f"--steps {steps}: takes at least {LEAST}: to warm up, to be timed, to be traced")
    base = _one(source, overrides, stage)
    hardware = capped(detect(), base.hardware.memory_cap)
    if base.probe is not None and base.probe.features == "cached":
        raise UserError("compare: a probe on cached features has no strategy to speak of; use probe.features=online")
    if base.run_dir is not None:
        raise UserError("compare: run_dir is one run's; say where all of them go with --output DIR")
    if max_batch and hardware.device == "cpu":
        raise UserError("--max-batch: needs GPUs: a CPU's memory has no edge at which a micro-batch stops to fit")
    said = base.strategy
    if said.name is None:
        base = base.model_copy(update={"strategy": settled_strategy(said, resolve_strategy(base).strategy)})
    asked = cases(strategies, gpus, hardware, base)
    facts = TASKS[base.task].describe(base)
    base = common(base, asked, facts, hardware)
    precision = resolve_precision(base.strategy.precision, hardware)
    directory, _ = rundir.make(f"compare-{base.name}", output)
    lock = rundir.claim(directory)
    work = Work(base, facts, hardware, directory, steps, profile)
    rows: list[Row] = []

    def so_far() -> Comparison:
        return Comparison(str(base.name), hardware, precision, base.train.global_batch, steps, tuple(rows))

    code, case, number = None, asked[0], 1
    took: list[float] = []
    try:
        for number, case in enumerate(asked, start=1):
            print(_progress(number - 1, asked, took), flush=True)
            started = time.monotonic()
            row = work.row(case)
            rows.append(row)
            write(so_far(), directory)
            print(_in_words(row), flush=True)
            if max_batch:
                rows[-1] = work.with_largest(case, row)
                write(so_far(), directory)
            if row.status != "refused":
                took.append(time.monotonic() - started)
    except (Interrupted, KeyboardInterrupt) as interrupted:
        ended = interrupted if isinstance(interrupted, Interrupted) else Interrupted(INTERRUPTED)
        code = ended.code
        if ended.row is not None and len(rows) < number:  # not one that looks for the largest micro-batch
            rows.append(ended.row)
            write(so_far(), directory)
        print(f"interrupted in {case.label}; {'what was' if rows else 'nothing was'} measured by then")
    finally:
        os.close(lock)
    _show(so_far(), directory)
    if code is None:
        code = 0 if any(row.status == "ok" for row in rows) else 1
    return code, directory


def compare_runs(runs: Sequence[Path], *, output: Path | None = None) -> tuple[int, Path]:
    """The same from finished runs. Returns the exit code and the directory. Raises UserError where work differs."""
    if len(runs) < 2:
        raise UserError(f"compare: {runs[0]} is one run: name another one to compare it with")
    specs = [rundir.load(run) for run in runs]
    first, notes = specs[0], list[str]()
    for spec in specs[1:]:
        notes += differences(first, spec)
    directory, _ = rundir.make(f"compare-{first.recipe.name}", output)
    rows = [row_of(spec, directory) for spec in specs]
    labels = [row.label for row in rows]
    rows = [
        row if labels.count(row.label) == 1 else replace(row, label=f"{row.label} ({spec.run_dir.name})")
        for row, spec in zip(rows, specs, strict=True)
    ]
    batches = first.batches
    comparison = Comparison(
        str(first.recipe.name),
        first.hardware,
        first.precision,
        batches.global_batch,
        batches.total_steps,
        tuple(rows),
        tuple(notes),
    )
    write(comparison, directory)
    _show(comparison, directory)
    return 0 if any(row.status == "ok" for row in rows) else 1, directory


def _show(comparison: Comparison, directory: Path) -> None:
    if comparison.rows:
        write(comparison, directory)
        width = min(WIDTH, shutil.get_terminal_size((WIDTH, 24)).columns)
        print(terminal(comparison, width))
        page = pages.make(directory)
        if page is not None:
            print(f"page        {os.path.relpath(page)}")
    print(f"comparison  {os.path.relpath(directory)}")


def _one(source: str, overrides: Sequence[str], stage: int | None) -> Recipe:
    """The recipe, or that of one of its stages. Raises UserError."""
    job = load_job(source, overrides)
    if not job.staged:
        if stage is not None:
            raise UserError(f"--stage: {source} has no stages")
        return job.stages[0]
    if stage is None or stage > len(job.stages):
        names = ", ".join(f"{number}: {one.name}" for number, one in enumerate(job.stages, 1))
        fault = "each is a run" if stage is None else f"none is number {stage}"
        raise UserError(f"compare: {source} has stages ({names}), and {fault}: name one with --stage N")
    return job.stages[stage - 1].model_copy(update={"name": f"{job.name}-{job.directories[stage - 1]}"})


def _progress(number: int, asked: Sequence[Case], took: Sequence[float]) -> str:
    """`[2/4] zero2 x2, about 0:01:10 left in all`, from how long the runs before took."""
    left = ""
    if took:
        left = f", about {timedelta(seconds=round(sum(took) / len(took) * (len(asked) - number)))} left in all"
    return f"[{number + 1}/{len(asked)}] {asked[number].label}{left}"


def _in_words(row: Row) -> str:
    if row.status != "ok" or row.samples_s is None or row.peak_allocated_gib is None:
        return f"{row.label}: {row.status}" + ("" if row.why is None else f": {row.why}")
    return f"{row.label}: {row.samples_s:,.1f} samples/s, {row.peak_allocated_gib:.2f} GiB"
