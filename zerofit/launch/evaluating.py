"""`zerofit eval TARGET`: images, language or CAD models, as the target is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import fields as fields_of
from pathlib import Path
from typing import Any

from zerofit.config.errors import UserError
from zerofit.config.schema import LANGUAGE
from zerofit.evaluate.asked import Asked, parse_ks
from zerofit.evaluate.shape_asked import AskedShapes, parse_mix
from zerofit.launch import answering, evaluation, rundir, shaping
from zerofit.launch.reference import is_run, split
from zerofit.plan.job import is_job
from zerofit.prepare.mapping import parse_fields

LANGUAGE_OPTIONS, CAD_OPTIONS = (
    {field.name for field in fields_of(kind)} - {"target", "data"} for kind in (Asked, AskedShapes)
)
"""Of each kind of evaluation, besides those of all."""


def given_options(*, k: str | None, mix: str | None, fields: str | None, **others: Any) -> dict[str, Any]:
    """Those that were given, read. Raises UserError."""
    given = {name: value for name, value in others.items() if value is not None and value is not False}
    given |= {} if k is None else {"k": parse_ks(k)}
    given |= {} if mix is None else {"mix": parse_mix(mix)}
    given |= {} if fields is None else {"fields": parse_fields(fields)}
    return given


def evaluate(
    target: str,
    data: Sequence[str],
    options: Mapping[str, Any],
    *,
    nproc: int | None = None,
    step: int | None = None,
    debug: bool = False,
) -> int:
    """Evaluate a run, or a language model; `options` are those that not all kinds take, where they were given.

    Returns the exit code. Raises UserError.
    """
    run, at = split(Path(target))
    if at is not None and step is not None:
        raise UserError(f"{target} names a step, and so does --checkpoint {step}: leave one of them out")
    step = step if at is None else at
    if is_run(run) or is_job(run) or at is not None:
        spec = rundir.load(run)
        task = spec.recipe.task
        if task == "cad":
            _check_options(options, CAD_OPTIONS, f"{target} is of task {task}")
            return shaping.evaluate(target, data, options, spec=spec, nproc=nproc, step=step, debug=debug)
        if task not in LANGUAGE:
            _check_options(options, set(), f"{target} is of task {task}")
            return evaluation.evaluate(run, data, nproc=nproc, step=step, debug=debug)
        _check_options(options, LANGUAGE_OPTIONS, f"{target} is of task {task}")
        return answering.evaluate(target, data, options, spec=spec, nproc=nproc, step=step, debug=debug)
    if step is not None:
        raise UserError(f"--checkpoint {step}: {target} is no run, and has no steps; leave it out")
    _check_options(options, LANGUAGE_OPTIONS, f"{target} is no run")
    return answering.evaluate(target, data, options, nproc=nproc, debug=debug)


def _check_options(options: Mapping[str, Any], taken: Set[str], what: str) -> None:
    """Raise UserError for one that this kind of evaluation does not take."""
    for name in options:
        if name not in taken:
            kinds = {"language models": LANGUAGE_OPTIONS, "runs on CAD models": CAD_OPTIONS}
            whose = " and ".join(kind for kind, known in kinds.items() if name in known)
            raise UserError(f"--{name.replace('_', '-')}: is for {whose}, and {what}")
