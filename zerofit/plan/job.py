"""job.json: what a job of stages is. Each stage's run directory lies beside it, with a run.json of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from zerofit.config.errors import UserError
from zerofit.config.limited import read_limited
from zerofit.config.schema import Recipe
from zerofit.config.section import Section
from zerofit.config.stages import Job

JOB_FILE = "job.json"


class Stage(Section):
    """One stage."""

    directory: str
    """Name of its run directory: 01-finetune."""
    recipe: Recipe
    """As given: without the init_from and run_dir that follow from its place."""


class JobSpec(Section):
    """The stages of a job, in order."""

    version: Literal[1] = 1
    """Version of this format."""
    name: str
    """As the recipe, or the command line, names it."""
    first: int = 1
    """Number, from 1, of the stage that it begins with (`--from-stage`)."""
    nproc: int | None = None
    """Ranks that were asked for; null: each stage's default."""
    stages: tuple[Stage, ...] = Field(min_length=1)
    """In order."""

    def recipe(self, number: int, directory: Path) -> Recipe:
        """The recipe of stage `number`, from 1, as it runs in the job's `directory`: initialised from the one before.

        A stage that gives an init_from of its own keeps it.
        """
        recipe = self.stages[number - 1].recipe
        given = recipe.init_from
        if given is None and number > 1:
            given = str(self.run(number - 1, directory))
        return recipe.model_copy(update={"run_dir": self.run(number, directory), "init_from": given})

    def run(self, number: int, directory: Path) -> Path:
        """Run directory of stage `number`, from 1, in the job's `directory`."""
        return directory / self.stages[number - 1].directory

    def runs(self, directory: Path) -> list[Path]:
        """All of them, in order."""
        return [directory / stage.directory for stage in self.stages]


def spec_of(job: Job, nproc: int | None) -> JobSpec:
    """What job.json says of a job."""
    stages = (Stage(directory=one, recipe=recipe) for one, recipe in zip(job.directories, job.stages, strict=True))
    return JobSpec(name=job.name, nproc=nproc, stages=tuple(stages))


def is_job(directory: Path) -> bool:
    """Whether a directory is a job's, of which each stage is a run."""
    return (directory / JOB_FILE).is_file()


def read_job(directory: Path) -> JobSpec:
    """What a job's directory says of it. Raises UserError where that cannot be read."""
    path = directory / JOB_FILE
    try:
        return JobSpec.model_validate_json(read_limited(path))
    except OSError as error:
        raise UserError(f"{directory} is no job's directory: cannot read its {JOB_FILE}: {error.strerror}") from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise UserError(f"{path} is not a job of this version of zerofit: {where}: {first['msg']}") from None
