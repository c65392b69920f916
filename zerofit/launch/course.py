"""Which stages of which job a command asks for, and in which directory: from its options and what is there already."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from zerofit.config.changes import changed_fields
from zerofit.config.errors import UserError
from zerofit.config.load import load_job
from zerofit.launch import rundir
from zerofit.plan.job import JobSpec, is_job, read_job, spec_of


@dataclass(frozen=True)
class Course:
    """Which stages of which job are to run."""

    job: JobSpec
    directory: Path
    """The job's, absolute; that of a new one is settled when it is made."""
    first: int
    """Number, from 1, of the first stage to run."""
    only: bool
    """Whether it is the last one, too."""
    new: bool
    """Whether the directory is to be made."""
    resume: bool
    """Whether stages that are done are left out, rather than refused."""
    run_dir: Path | None = None
    """The directory of a new job, as given."""
    made: tuple[Path, ...] = ()
    """The directories that were made for a new job, deepest first."""
    trust: bool = False
    """Whether pickles that `init_from` names may run any code."""

    @property
    def numbers(self) -> range:
        """The stages that are to run, from 1."""
        return range(self.first, self.first + 1 if self.only else len(self.job.stages) + 1)

    def run(self, number: int) -> Path:
        """A stage's run directory."""
        return self.job.run(number, self.directory)


def find(
    source: str | None,
    overrides: Sequence[str],
    *,
    resume: Path | None,
    from_stage: int | None,
    stage: int | None,
    nproc: int | None,
) -> Course | None:
    """What is asked for on the command line; null where that is a single run. Raises UserError."""
    options = [name for name, value in (("--from-stage", from_stage), ("--stage", stage)) if value is not None]
    if len(options) > 1:
        raise UserError("--from-stage and --stage: give one of them, the first stage to run or the only one")
    if resume is not None:
        if is_job(resume):
            return _to_go_on(resume, source, overrides, from_stage, stage)
        what = str(resume)
    else:
        assert source is not None
        job = load_job(source, overrides)
        if job.staged:
            first = from_stage or stage or 1
            directory = next(rundir.candidates(job.name, job.run_dir))
            course = Course(spec_of(job, nproc), directory, first, stage is not None, first == 1, False, job.run_dir)
            _check_number(options, first, len(job.stages), source)
            return course if course.new else _joined(course)
        what = source
    if options:
        raise UserError(f"{options[0]}: {what} has no stages")
    return None


def _check_number(options: Sequence[str], number: int, stages: int, what: str) -> None:
    if number > stages:
        raise UserError(f"{options[0]} {number}: {what} has stages 1 to {stages}")


def _to_go_on(
    run: Path, source: str | None, overrides: Sequence[str], from_stage: int | None, stage: int | None
) -> Course:
    """The rest of an existing job."""
    job, directory = read_job(run), run.expanduser().absolute()
    if from_stage is not None:
        raise UserError(f"--from-stage: {run} goes on where it ended; leave it out, or leave --resume out")
    if source is None and overrides:
        raise UserError(f"{run} goes on with the recipe that it was started with: leave {overrides[0]} out")
    if source is not None:
        _refuse_changes(run, job, spec_of(load_job(source, overrides), None), 1)
    if stage is not None:
        _check_number(["--stage"], stage, len(job.stages), str(run))
    return Course(job, directory, stage or job.first, stage is not None, False, True)


def _joined(course: Course) -> Course:
    """The course in the directory of an earlier job of its name, whose stages before the first are kept.

    Raises UserError where the stage before the first has no checkpoint, or a stage that is to run is there already.
    """
    asked, first, directory = course.job, course.first, course.directory
    shown, option = os.path.relpath(directory), "--stage" if course.only else "--from-stage"
    if asked.stages[first - 1].recipe.init_from is None:
        _check_origin(asked, first, directory, option)
    old = read_job(directory) if is_job(directory) else None
    for number in course.numbers:
        run = course.run(number)
        if run.exists() and is_done(run):
            raise UserError(
                f"{option} {first}: {os.path.relpath(run)} is finished: remove it to train that stage anew, "
                "or name another job with name=..."
            )
        if run.exists() and rundir.has_begun(run) and old is not None:
            _refuse_changes(Path(shown), old, asked, number)
    if old is None or len(old.stages) < first:
        return replace(course, job=asked.model_copy(update={"first": first}))
    kept = {"stages": (*old.stages[: first - 1], *asked.stages[first - 1 :])}
    return replace(course, job=asked.model_copy(update={**kept, "first": old.first if course.only else first}))


def _check_origin(job: JobSpec, number: int, directory: Path, option: str) -> None:
    """Raise UserError where the stage before `number` has no whole checkpoint to start from."""
    from zerofit.checkpoint.manifest import newest

    before = job.run(number - 1, directory)
    if newest(before / "checkpoints") is None:
        what = "has no complete checkpoint" if before.exists() else "does not exist"
        raise UserError(
            f"{option} {number} starts from the run of stage {number - 1}, and {os.path.relpath(before)} {what}: "
            "train that stage first, or give the job's name with name=..."
        )


def _refuse_changes(run: Path, old: JobSpec, new: JobSpec, first: int) -> None:
    """Raise UserError where stages from number `first` on differ from what an existing job has, a line each."""
    changes = [] if old.name == new.name else [f"name: {old.name} -> {new.name}"]
    if len(old.stages) != len(new.stages):
        changes.append(f"stages: {len(old.stages)} -> {len(new.stages)}")
    for number, (before, after) in enumerate(zip(old.stages, new.stages, strict=False)):
        if number >= first - 1:
            changes += [f"stages.{number}.{line}" for line in changed_fields(before.recipe, after.recipe)]
    if changes:
        raise UserError("\n".join([f"{run} goes on with the recipe that it was started with; these differ:", *changes]))


def is_done(run: Path) -> bool:
    """Whether a stage has taken all its steps: it has its result, or was cut off in its last test."""
    from zerofit.checkpoint.manifest import newest, step_of

    if rundir.has_finished(run):
        return True
    if not rundir.has_begun(run):
        return False
    checkpoint = newest(run / "checkpoints", lambda *_: None)  # whoever goes on from there names what is damaged
    return checkpoint is not None and (step_of(checkpoint) or 0) >= rundir.load(run).batches.total_steps
