"""`zerofit eval`: a run's checkpoint on its own test split, or on other data. Results go to RUN/evaluations/N.json."""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import count
from pathlib import Path

from zerofit.config.changes import changed_fields
from zerofit.config.data import Data
from zerofit.config.errors import UserError
from zerofit.config.schema import Recipe
from zerofit.launch import rundir
from zerofit.launch.dispatch import Launch, check_ranks, default_ranks, dispatch
from zerofit.launch.recipe import override
from zerofit.launch.worker import Evaluation
from zerofit.plan.spec import Hardware
from zerofit.report import table


def evaluate(
    run: Path,
    data: Sequence[str] = (),
    *,
    nproc: int | None = None,
    step: int | None = None,
    debug: bool = False,
) -> int:
    """Evaluate the checkpoint of `step`, or the newest; `data` is a path or `data.x=y`. Returns the exit code.

    Raises UserError where there is no such run, checkpoint or data.
    """

    def plan(hardware: Hardware, ranks: int | None) -> Launch:
        spec = rundir.load(run)
        ranks = ranks or default_ranks(spec.strategy.name, hardware)
        check_ranks(hardware, ranks)
        checkpoint = chosen_checkpoint(spec.run_dir, step)
        request = Evaluation(checkpoint=checkpoint, data=other_data(spec.recipe, data), hardware=hardware, ranks=ranks)
        path = _write(spec.run_dir / "evaluations", request)
        return Launch(
            run_dir=spec.run_dir,
            arguments=(str(spec.run_dir), "--evaluate", str(path)),
            logs=spec.run_dir / "logs" / f"evaluation-{path.stem}",
            result=path,
            ranks=ranks,
            again=f"zerofit eval {os.path.relpath(spec.run_dir)}",
            headline=f"evaluating {os.path.relpath(checkpoint)}: {ranks} ranks on {hardware.name}",
        )

    return dispatch(plan, nproc=nproc, debug=debug, show=_show)


def other_data(recipe: Recipe, words: Sequence[str]) -> Data | None:
    """The recipe's data section with the words applied; null without any. Raises UserError where they change more."""
    return with_data(recipe, words).images if words else None


def with_data(recipe: Recipe, words: Sequence[str]) -> Recipe:
    """The recipe on the data that the words name, a path or `data.x=y`. Raises UserError where they change more."""
    overrides = [word if "=" in word and not Path(word).exists() else f"data.path={word}" for word in words]
    asked = override(recipe, overrides)
    other = [line for line in changed_fields(recipe, asked) if not line.startswith("data.")]
    if other:
        raise UserError("\n".join(["--data changes data fields alone, not these:", *other]))
    return asked


def chosen_checkpoint(run_dir: Path, step: int | None) -> Path:
    """The checkpoint of `step`, or the newest. Raises UserError where it is missing or damaged."""
    from zerofit.checkpoint.manifest import newest
    from zerofit.launch.reference import exact, tell

    if step is not None:
        return exact(run_dir, step, lambda one: f"--checkpoint {one}")
    checkpoint = newest(run_dir / "checkpoints", tell)
    if checkpoint is None:
        raise UserError(
            f"{run_dir} has no complete checkpoint (with checkpoint.at_end=false none is written at the end)"
        )
    return checkpoint


def _write(directory: Path, request: Evaluation) -> Path:
    """Write the next N.json."""
    directory.mkdir(exist_ok=True)
    for number in count(1):
        path = directory / f"{number}.json"
        try:
            with path.open("x", encoding="utf-8") as file:
                file.write(request.model_dump_json(indent=2))
        except FileExistsError:
            continue
        return path
    raise AssertionError


def _show(launch: Launch) -> None:
    print(table.evaluation(launch.result))
