"""`zerofit train`: from a recipe, or an interrupted run, to a result."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from zerofit.config import patience
from zerofit.config.errors import UserError
from zerofit.config.load import load_recipe
from zerofit.config.schema import Recipe
from zerofit.launch import pages, rundir, workarounds
from zerofit.launch.asked import calibrated
from zerofit.launch.choosing import check, choose
from zerofit.launch.course import Course, find
from zerofit.launch.dispatch import Launch, count_ranks, dispatch
from zerofit.launch.environment import outer_world
from zerofit.launch.predicting import Timed, predicted
from zerofit.launch.recipe import override
from zerofit.launch.reference import is_run, split
from zerofit.launch.relocate_zero import is_deepspeed
from zerofit.launch.replan import put_in_place, replan, said
from zerofit.launch.restarts import Restarts
from zerofit.plan.auto import is_open
from zerofit.plan.build import make_plan
from zerofit.plan.files import write_spec
from zerofit.plan.grpo_advice import advice
from zerofit.plan.hardware import host_memory_gib
from zerofit.plan.spec import Hardware, RunSpec
from zerofit.plan.strategy import resolve_strategy
from zerofit.report import outlook, table


def train(
    source: str | None,
    overrides: Sequence[str] = (),
    *,
    nproc: int | None = None,
    resume: Path | None = None,
    from_stage: int | None = None,
    stage: int | None = None,
    trust: bool = False,
    auto_resume: int = 0,
    debug: bool = False,
) -> int:
    """Train the recipe `source` (a name or a path) or go on with the run `resume`. Returns the exit code.

    Of a recipe with stages all, those from number `from_stage` on, or number `stage` alone; numbers are from 1.
    `resume` may be another program's DeepSpeed checkpoint, with a recipe: a new run goes on from there. `trust` lets
    pickles that `init_from` names, or such a checkpoint's, run any code. Where a rank crashes, go on up to
    `auto_resume` times.
    Raises UserError before anything is written where the recipe, the data or the hardware do not allow the run.
    """
    from zerofit.launch import stages

    def asked() -> Course | None:
        course = find(source, overrides, resume=resume, from_stage=from_stage, stage=stage, nproc=nproc)
        return None if course is None else replace(course, trust=trust)

    patience.grace(os.environ), patience.watchdog(os.environ)  # what is wrong with them is said before all else
    workarounds.quiet()
    restarts, launches = Restarts(auto_resume), list[Launch]()
    changes: tuple[str, ...] | None = ()
    if outer_world(os.environ) is None:
        course = asked()
        if course is not None:
            return stages.run(course, nproc=nproc, debug=debug, restarts=restarts)
    elif auto_resume:
        raise UserError("--auto-resume: an outer launcher's processes live for one start; leave it out")

    def plan(hardware: Hardware, ranks: int | None) -> Launch:
        course = asked()
        if course is not None:
            return stages.plan_one(course, hardware, ranks)
        if launches:
            return go_on(launches[0].run_dir, None, changes or (), hardware, ranks, anew=True)
        if resume is not None:
            if is_foreign(resume, source):
                if source is None:
                    raise UserError(
                        f"--resume: {resume} is no run of zerofit: name the recipe that it goes on with, too"
                    )
                return begin(load_recipe(source, overrides), hardware, ranks, trust=trust, resume=resume)
            if trust:
                raise UserError(f"--trust: {resume} goes on as it was started; leave it out")
            return go_on(resume, source, overrides, hardware, ranks)
        assert source is not None
        recipe = load_recipe(source, overrides)
        if trust and recipe.init_from is None:
            raise UserError("--trust is for what init_from names, and the recipe has no init_from; leave it out")
        return begin(recipe, hardware, ranks, trust=trust)

    def once() -> int:
        def noted(hardware: Hardware, ranks: int | None) -> Launch:
            launches.append(plan(hardware, ranks))
            return launches[-1]

        return dispatch(noted, nproc=nproc, debug=debug, show=_show)

    code = once()
    ours = outer_world(os.environ) is None
    while ours and code != 0 and (changes := restarts.again(code, launches[0].run_dir)) is not None:
        code = once()
    if code == 0 and launches and ours:
        from zerofit.launch.answered import after_training

        code = after_training(launches[0].run_dir, None, nproc=nproc, debug=debug)
    return code


def begin(
    recipe: Recipe, hardware: Hardware, ranks: int | None, *, trust: bool = False, resume: Path | None = None
) -> Launch:
    """A new run; with `resume` it goes on from a checkpoint that is no run's (`launch.foreign`). Raises UserError."""
    from zerofit.tasks import TASKS

    assert recipe.name is not None, "load_recipe names the recipe"
    facts = TASKS[recipe.task].describe(recipe)
    chosen = resolve_strategy(recipe)
    ranks = count_ranks(chosen, ranks, hardware, recipe.train)
    hoped = next(rundir.candidates(recipe.name, recipe.run_dir))
    origin, origin_step, lines = None, None, list[str]()
    if resume is not None:
        from zerofit.launch import foreign

        origin, origin_step = foreign.resolve(resume, recipe, trust)
    elif recipe.init_from is not None:
        from zerofit.launch.origin import resolve

        origin = resolve(recipe.init_from)
    spec = make_plan(
        recipe,
        facts=facts,
        hardware=hardware,
        ranks=ranks,
        run_dir=hoped,
        origin=origin,
        origin_step=origin_step,
        trust=trust,
        chosen=chosen,
    )
    spec = _settled(spec)
    if origin_step is not None:
        lines = foreign.check(spec)
    if spec.prediction is None:
        spec, unpredicted = predicted(spec, host_memory_gib(), calibrated(hardware))
        lines += [] if unpredicted is None else [unpredicted]
    run_dir, made = rundir.make(recipe.name, recipe.run_dir)
    lock = rundir.claim(run_dir)
    spec = spec.model_copy(update={"run_dir": run_dir})
    write_spec(spec)
    for line in lines:
        print(line)
    return _launch(spec, lock, (), made)


def _settled(spec: RunSpec) -> RunSpec:
    """With what its recipe leaves to the planner chosen. Raises UserError where nothing fits."""
    if not is_open(spec.recipe):
        return spec
    calibration = calibrated(spec.hardware)
    timing = Timed(calibration) if spec.hardware.device == "cuda" else None
    spec = choose(spec, host_memory_gib(), timing, tell=partial(print, flush=True), calibration=calibration)
    check(spec)
    return spec


def go_on(
    run: Path,
    source: str | None,
    overrides: Sequence[str],
    hardware: Hardware,
    ranks: int | None,
    *,
    anew: bool = False,
) -> Launch:
    """An existing run, from its newest whole checkpoint, or the one that `run` names (RUN@STEP).

    Under another strategy, or on another number of ranks, where that is asked for. Without a checkpoint it begins anew
    where it was interrupted (features that were extracted by then are kept), or with `anew`. Raises UserError.
    """
    from zerofit.checkpoint.manifest import read_manifest, step_of
    from zerofit.tasks import TASKS

    run, step = split(run)
    before = rundir.load(run)
    asked = before.recipe
    if source is not None or overrides:
        asked = load_recipe(source, overrides) if source is not None else override(before.recipe, overrides)
    spec = replan(run, before, asked, hardware, ranks)
    if spec is not before:
        spec, _ = predicted(spec, host_memory_gib(), calibrated(hardware))
    TASKS[spec.recipe.task].restore(spec)
    lock = rundir.claim(spec.run_dir)
    try:
        checkpoint = _checkpoint_of(run, step, spec, anew)
        lines = _from_origin(spec) if checkpoint is None else []
    except BaseException:
        os.close(lock)
        raise
    (spec.run_dir / "result.json").unlink(missing_ok=True)
    at = 0 if checkpoint is None else step_of(checkpoint) or 0
    if spec is not before:
        put_in_place(spec, at)
        if checkpoint is not None:
            print(said(read_manifest(checkpoint).facts, spec, at))
    for line in lines:
        print(line)
    return _launch(spec, lock, () if checkpoint is None else ("--resume", str(checkpoint)))


def is_foreign(asked: Path, source: str | None) -> bool:
    """Whether --resume names no run or checkpoint of one, but a directory that something else may have written.

    Without a recipe `source` only one with DeepSpeed's files is, or one in the canonical form.
    """
    run, _ = split(asked)
    directory = asked.expanduser()
    if is_run(run) or not directory.is_dir():
        return False
    return source is not None or is_deepspeed(directory) or (directory / "state.json").is_file()


def _from_origin(spec: RunSpec) -> list[str]:
    """What is said of a run that begins at another program's checkpoint, once more. Raises UserError."""
    if spec.origin_step is None:
        return []
    from zerofit.launch import foreign

    return foreign.check(spec)


def _checkpoint_of(run: Path, step: int | None, spec: RunSpec, anew: bool) -> Path | None:
    """Where the run, claimed, goes on from; null: it begins anew.

    Raises UserError where there is no such checkpoint, or nothing to do.
    """
    from zerofit.checkpoint.commit import sweep
    from zerofit.checkpoint.manifest import newest, step_of, steps
    from zerofit.launch.reference import exact, tell

    sweep(spec.run_dir / "checkpoints")
    if step is not None:
        checkpoint: Path | None = exact(spec.run_dir, step, lambda one: f"--resume {run}@{one}")
    else:
        checkpoint = newest(spec.run_dir / "checkpoints", tell)
    begun = anew or spec.origin_step is not None  # what it goes on from is there all the same
    if checkpoint is None and not begun and rundir.exit_of(spec.run_dir) != "interrupted":
        raise UserError(f"{run} has no complete checkpoint to go on from: train anew")
    at = 0 if checkpoint is None else step_of(checkpoint) or 0
    ended = step is None and rundir.has_finished(spec.run_dir)  # who names an earlier step wants it trained again
    if ended or at >= spec.batches.total_steps:
        raise UserError(f"{run} is finished: all its steps are done; see: zerofit eval {run}")
    later = [str(one) for one in steps(spec.run_dir / "checkpoints") if step is not None and one > step]
    if later:
        print(f"from step {step}; checkpoints that training has yet to pass are kept until then: {', '.join(later)}")
    return checkpoint


def _launch(spec: RunSpec, lock: int, arguments: tuple[str, ...], made: tuple[Path, ...] | None = None) -> Launch:
    return Launch(
        run_dir=spec.run_dir,
        arguments=(str(spec.run_dir), *arguments),
        logs=spec.run_dir / "logs",
        result=spec.run_dir / "result.json",
        ranks=spec.batches.ranks,
        headline="\n".join([table.headline(spec), *outlook.choice(spec), *(advice(spec) or outlook.line(spec))]),
        lock=lock,
        made=made,
        steps=spec.batches.total_steps,
        prediction=spec.prediction,
        again=f"zerofit train --resume {os.path.relpath(spec.run_dir)}",
    )


def _show(launch: Launch) -> None:
    print(table.training(launch.run_dir, pages.make(launch.run_dir)))
