"""`zerofit train` of a recipe with stages: a run each, one after another, each from the weights of the one before.

job.json says what the job is and is written first; the stages' directories say how far it has come.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from zerofit.config.errors import UserError
from zerofit.config.schema import Recipe
from zerofit.launch import pages, rundir
from zerofit.launch.course import Course, is_done
from zerofit.launch.dispatch import Launch, count_ranks, dispatch
from zerofit.launch.export import export
from zerofit.launch.failure import INTERRUPTED
from zerofit.launch.restarts import Restarts
from zerofit.launch.start import begin, go_on
from zerofit.plan.build import make_plan
from zerofit.plan.hardware import detect
from zerofit.plan.job import JOB_FILE, is_job
from zerofit.plan.spec import Hardware
from zerofit.plan.strategy import resolve_strategy
from zerofit.report import table


def run(course: Course, *, nproc: int | None, debug: bool, restarts: Restarts) -> int:
    """Run the stages on ranks of our own, one after another. Returns the exit code: of the first that fails.

    Raises UserError, before anything is written where a stage's recipe, data or the hardware do not allow it.
    """
    left = [number for number in course.numbers if not (course.resume and is_done(course.run(number)))]
    if not left:
        _refuse_finished(course)
    check(course, left, detect(), nproc)
    course = establish(course)
    lock = rundir.claim(course.directory)
    shown, count = os.path.relpath(course.directory), len(course.job.stages)
    advice = f"go on with: zerofit train --resume {shown}"
    try:
        for number in course.numbers:
            code, more = 0, number < course.numbers[-1]
            try:
                if number in left:
                    stage = partial(launch, course, number)
                    code = dispatch(stage, nproc=nproc, debug=debug, show=_make_page, more=more)
                else:
                    print(f"{os.path.relpath(course.run(number))}: done before")
                while code != 0 and (changes := restarts.again(code, course.run(number))) is not None:
                    stage = partial(launch, course, number, changes=changes)
                    code = dispatch(stage, nproc=nproc, debug=debug, show=_make_page, more=more)
            except UserError as error:
                kept = f"\nstage {number} of {count} has ended the job; {advice}" if is_job(course.directory) else ""
                raise UserError(f"{error}{kept}") from None
            if code == 0:  # of one that was done before, too: a signal may have come before its answers
                code = _answers(course, number, nproc, debug)
            if code != 0:
                what = "was interrupted" if code == INTERRUPTED else "has ended the job"
                print(f"stage {number} of {count} {what}; {advice}", file=sys.stderr)
                return code
    finally:
        os.close(lock)
    page = pages.make(course.directory)
    print(table.job([path for path in course.job.runs(course.directory) if path.exists()], page))
    return 0


def _answers(course: Course, number: int, nproc: int | None, debug: bool) -> int:
    from zerofit.launch.answered import after_training

    before = course.run(number - 1) if number > 1 else None
    return after_training(course.run(number), before, nproc=nproc, debug=debug)


def _make_page(launch: Launch) -> None:
    pages.make(launch.run_dir)


def plan_one(course: Course, hardware: Hardware, ranks: int | None) -> Launch:
    """The one stage that is to run, for an outer launcher's rank 0. Raises UserError."""
    if not course.only:
        raise UserError(
            "a process of an outer launcher lives for one stage: give --stage 1, then --stage 2 and so on, "
            "each in a launch of its own"
        )
    number = course.first
    if course.resume and is_done(course.run(number)):
        _refuse_finished(course)
    check(course, range(1, len(course.job.stages) + 1) if course.new else [number], hardware, ranks)
    course = establish(course)
    again = f"zerofit train --resume {os.path.relpath(course.directory)} --stage {number}"
    return replace(launch(course, number, hardware, ranks), again=again)


def _refuse_finished(course: Course) -> None:
    shown = os.path.relpath(course.run(course.first) if course.only else course.directory)
    last = os.path.relpath(course.run(course.numbers[-1]))
    what = "the stage is done" if course.only else f"all {len(course.job.stages)} stages are done"
    raise UserError(f"{shown} is finished: {what}; see: zerofit eval {last}")


def check(course: Course, numbers: Sequence[int], hardware: Hardware, ranks: int | None) -> None:
    """Plan every stage, as far as that goes before the one before it has run. Raises UserError that names the stage."""
    from zerofit.launch.origin import resolve
    from zerofit.tasks import TASKS

    for number in numbers:
        recipe = course.job.recipe(number, course.directory)
        asked = ranks or course.job.nproc if number == course.first or not course.only else None
        try:
            given = course.job.stages[number - 1].recipe.init_from
            if given is not None and not Path(given).absolute().is_relative_to(course.directory):
                resolve(given)  # in the job's directory another stage may still write it
            facts = TASKS[recipe.task].describe(recipe)
            chosen = resolve_strategy(recipe)
            count = count_ranks(chosen, asked, hardware, recipe.train)
            make_plan(recipe, facts=facts, hardware=hardware, ranks=count, run_dir=course.run(number), chosen=chosen)
        except UserError as error:
            name = course.job.stages[number - 1].directory
            raise UserError("\n".join(f"{name}: {line}" for line in str(error).splitlines())) from None


def establish(course: Course) -> Course:
    """Make the job's directory where it is new, and write job.json into it."""
    if course.resume:
        return course
    directory = course.directory
    made: tuple[Path, ...] = ()
    if course.new:
        directory, made = rundir.make(course.job.name, course.run_dir)
    directory.mkdir(parents=True, exist_ok=True)
    rundir.write_json(directory / JOB_FILE, course.job.model_dump(mode="json"))
    return replace(course, directory=directory, made=made)


def launch(
    course: Course, number: int, hardware: Hardware, ranks: int | None, *, changes: Sequence[str] = ()
) -> Launch:
    """A stage from its newest checkpoint, or from its start where it has none; what it left then is removed first.

    With `changes` of its recipe it goes on as it is. Raises UserError, which leaves nothing of a new job whose first
    stage it is.
    """
    stage = course.run(number)
    if stage.exists():
        if changes or any(stage.glob("checkpoints/step-*")):
            return replace(go_on(stage, None, changes, hardware, ranks, anew=bool(changes)), again=None)
        os.close(rundir.claim(stage))
        rundir.remove(stage, (stage,))
    first = course.made if number == 1 else ()
    try:
        recipe = _with_whole_origin(course, number)
        begun = begin(recipe, hardware, ranks or course.job.nproc, trust=course.trust)
    except UserError:
        if first:
            rundir.remove(course.directory, first)
        raise
    assert begun.made is not None
    return replace(begun, made=(*begun.made, *first), again=None)


def _with_whole_origin(course: Course, number: int) -> Recipe:
    """A stage's recipe. Where the stage before keeps what it trained alone (LoRA, a probe), that is exported first."""
    from zerofit.checkpoint.manifest import newest
    from zerofit.models.frozen import trains_a_part

    recipe = course.job.recipe(number, course.directory)
    if number == 1 or course.job.stages[number - 1].recipe.init_from is not None:
        return recipe
    before = course.run(number - 1)
    checkpoint = newest(before / "checkpoints")
    if checkpoint is None or not trains_a_part(course.job.stages[number - 2].recipe):
        return recipe
    whole = before / "exported" / checkpoint.name
    if not whole.exists():
        whole.parent.mkdir(exist_ok=True)
        export(before, whole)
    return recipe.model_copy(update={"init_from": str(whole)})
