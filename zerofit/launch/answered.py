"""What `evaluate.problems` and `evaluate.shapes` of a recipe ask for once its run is there.

The same as `zerofit eval RUN` with options.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from zerofit.launch import answering, rundir, shaping
from zerofit.plan.spec import RunSpec


def after_training(run: Path, before: Path | None, *, nproc: int | None, debug: bool) -> int:
    """Have the newest checkpoint of a finished run evaluated, where its recipe says so. Returns the exit code.

    `before` is the run that it began with: its newest evaluation of the same kind is what this one is compared with.
    Raises UserError.
    """
    spec = rundir.load(run)
    problems, shapes = spec.recipe.evaluate.problems, spec.recipe.evaluate.shapes
    if newest_evaluation(run) is not None:
        return 0
    if shapes is not None:
        return shaping.evaluate(str(run), (), shapes.model_dump(), spec=spec, nproc=nproc, debug=debug)
    if problems is None:
        return 0
    against = None if before is None or not _alike(before, spec) else newest_evaluation(before)
    options: dict[str, Any] = {
        "k": tuple(sorted({1, *problems.k})),
        "samples": problems.samples,
        "limit": problems.limit,
        "temperature": problems.temperature,
        "max_tokens": problems.max_tokens,
        "against": against,
    }
    data = () if problems.data is None else (problems.data,)
    return answering.evaluate(str(run), data, options, spec=spec, nproc=nproc, debug=debug)


def newest_evaluation(run: Path) -> Path | None:
    """The newest finished evaluation beside a run, of a language model or on CAD models."""
    found = sorted(
        (path.parent for path in run.glob("evaluations/*/evaluation.json")), key=lambda path: path.stat().st_mtime
    )
    return found[-1] if found else None


def _alike(before: Path, spec: RunSpec) -> bool:
    """Whether the run before was asked for the same: its evaluation is of the same problems."""
    return rundir.load(before).recipe.evaluate.problems == spec.recipe.evaluate.problems
