"""`zerofit eval TARGET`: images or language, as the target is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from zerofit.config.errors import UserError
from zerofit.config.schema import LANGUAGE
from zerofit.evaluate.asked import parse_ks
from zerofit.launch import answering, evaluation, rundir
from zerofit.launch.reference import is_run, split
from zerofit.plan.job import is_job
from zerofit.prepare.mapping import parse_fields


def language_options(*, k: str | None, fields: str | None, **others: Any) -> dict[str, Any]:
    """Those that were given, read. Raises UserError."""
    given = {name: value for name, value in others.items() if value is not None}
    given |= {} if k is None else {"k": parse_ks(k)}
    given |= {} if fields is None else {"fields": parse_fields(fields)}
    return given


def evaluate(
    target: str,
    data: Sequence[str],
    language: Mapping[str, Any],
    *,
    nproc: int | None = None,
    step: int | None = None,
    debug: bool = False,
) -> int:
    """Evaluate a run, or a language model; `language` are the options that it alone takes, where they were given.

    Returns the exit code. Raises UserError.
    """
    run, at = split(Path(target))
    if at is not None and step is not None:
        raise UserError(f"{target} names a step, and so does --checkpoint {step}: leave one of them out")
    step = step if at is None else at
    if is_run(run) or is_job(run) or at is not None:
        spec = rundir.load(run)
        if spec.recipe.task not in LANGUAGE:
            if language:
                option = next(iter(language)).replace("_", "-")
                raise UserError(f"--{option}: is for language models, and {target} is of task {spec.recipe.task}")
            return evaluation.evaluate(run, data, nproc=nproc, step=step, debug=debug)
        return answering.evaluate(target, data, language, spec=spec, nproc=nproc, step=step, debug=debug)
    if step is not None:
        raise UserError(f"--checkpoint {step}: {target} is no run, and has no steps; leave it out")
    return answering.evaluate(target, data, language, nproc=nproc, debug=debug)
