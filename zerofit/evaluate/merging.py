"""From an evaluation's parts to its result: rollouts.parquet, then evaluation.json, which says that it is finished."""

from __future__ import annotations

import os
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from zerofit.config.errors import UserError
from zerofit.evaluate.parts import Parts
from zerofit.evaluate.problems import majority_baseline
from zerofit.evaluate.request import DONE, Request, read_done
from zerofit.measure.pass_at_k import mean_over_problems
from zerofit.measure.rollouts import Rollout, by_problem, compare_rollouts, figures, read_rollouts, write_rollouts
from zerofit.prepare.writing import write_json

ROWS = "rollouts.parquet"


def merge(directory: Path, request: Request, parts: Parts[Rollout]) -> None:
    """Write both, and remove the parts."""
    rows, wall = parts.all()
    write_rollouts(directory / ROWS, rows)
    settings = request.settings
    body: dict[str, Any] = {
        "format": 1,
        "model": settings.model.name,
        "weights": str(settings.model.weights),
        "data": request.data,
        "problems": settings.problems,
        "k": list(settings.k),
        "samples": settings.samples,
        "sampling": settings.sampling.model_dump(mode="json"),
        "seed": settings.seed,
        "engine": settings.engine,
        "dtype": settings.dtype,
        "quantize": settings.quantize,
        "figures": figures(rows, settings.k),
        "majority_baseline": majority_baseline([samples[0].gold for samples in by_problem(rows).values()]),
        "compared_with": None if request.against is None else compared(rows, request.against),
        "wall_s": round(wall, 3),
        "tokens_s": round(sum(row.tokens for row in rows) / max(wall, 1e-9), 1),
    }
    finish(directory, parts, body)


def finish(directory: Path, parts: Parts[Any], body: dict[str, Any]) -> None:
    """Write evaluation.json, whole or not at all, and remove the parts."""
    part = directory / f".{DONE}.part"
    write_json(part, body)
    os.replace(part, directory / DONE)
    shutil.rmtree(parts.directory, ignore_errors=True)


def check_against(directory: Path, problems: str) -> None:
    """Raise UserError where that is no finished evaluation, or one of other problems."""
    other = read_done(directory)
    if other["problems"] != problems:
        raise UserError(
            f"--against {os.path.relpath(directory)}: is an evaluation of other problems ({other['data']}); both are "
            "to be of the same ones, --limit included"
        )


def compared(rows: list[Rollout], directory: Path) -> dict[str, Any]:
    """What an evaluation of these rows, and the one in `directory`, come to side by side, on pass@1."""
    other = read_rollouts(directory / ROWS)
    first, second = _ordered(rows), _ordered(other)
    test = compare_rollouts([samples[0] for samples in first], [samples[0] for samples in second])
    gain = [_share(ours) - _share(theirs) for ours, theirs in zip(first, second, strict=True)]
    shifted = mean_over_problems([(1 + one) / 2 for one in gain])
    return {
        "evaluation": str(directory),
        "model": read_done(directory)["model"],
        "pass@1": read_done(directory)["figures"]["pass@1"],
        **asdict(test),
        "difference": {name: 2 * value - 1 for name, value in asdict(shifted).items()},
    }


def _ordered(rows: list[Rollout]) -> list[list[Rollout]]:
    """The samples of each problem; problems are called by their number, for files may have been moved."""
    problems = by_problem(rows).values()
    return [[replace(row, problem=str(number)) for row in samples] for number, samples in enumerate(problems)]


def _share(samples: list[Rollout]) -> float:
    return sum(row.correct for row in samples) / len(samples)
