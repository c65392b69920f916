"""What an evaluation of a reasoning model writes, a parquet row for each completion; and the figures of such rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from zerofit.config.errors import UserError
from zerofit.measure.parquet_rows import Form
from zerofit.measure.pass_at_k import Comparison, compare, maj_at_k, mean_over_problems, one_each, pass_at_k

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class Rollout:
    """One completion of one problem."""

    problem: str
    """Which problem it is; several rows of one problem are its samples."""
    prompt: str
    """What the model was given, as text."""
    completion: str
    """What it wrote."""
    gold: str
    """The right answer."""
    answer: str | None
    """The answer found in the completion; null: none."""
    correct: bool
    """Whether that is right."""
    tokens: int
    """Length of the completion in tokens."""
    stopped: bool = True
    """Whether it ended by itself, not at the most tokens that it was allowed."""


def write_rollouts(path: Path, rows: Iterable[Rollout], about: Mapping[str, str] | None = None) -> None:
    """Write a parquet file, which is there whole or not at all; `about` is said in its schema's metadata."""
    ROLLOUTS.write(path, rows, about)


def read_rollouts(path: Path) -> list[Rollout]:
    """Read such a file. Raises UserError where it is none."""
    return ROLLOUTS.read(path)


def figures(rows: Sequence[Rollout], ks: Sequence[int] = (1,)) -> dict[str, Any]:
    """pass@k, and maj@k above 1, as {value, low, high} each, with 95 % intervals over problems; and lengths.

    Raises UserError where a problem has fewer than k samples.
    """
    problems = by_problem(rows)
    if not problems:
        raise UserError("no rows to evaluate")
    found: dict[str, Any] = {"problems": len(problems), "samples": len(rows)}
    for k in ks:
        for name, samples in problems.items():
            if len(samples) < k:
                raise UserError(f"pass@{k} needs {k} samples of each problem; {name} has {len(samples)}")
        if k == 1 and len(rows) == len(problems):
            found["pass@1"] = asdict(one_each(sum(row.correct for row in rows), len(rows)))
            continue
        found[f"pass@{k}"] = asdict(mean_over_problems([_passes(samples, k) for samples in problems.values()]))
        if k > 1:
            found[f"maj@{k}"] = asdict(mean_over_problems([_majority(samples, k) for samples in problems.values()]))
    found["answered"] = sum(row.answer is not None for row in rows) / len(rows)
    found["truncated"] = sum(not row.stopped for row in rows) / len(rows)
    found["tokens"] = {"mean": fmean(row.tokens for row in rows), "max": max(row.tokens for row in rows)}
    return found


def compare_rollouts(first: Sequence[Rollout], second: Sequence[Rollout]) -> Comparison:
    """Which of two evaluations solves more. Raises UserError where they are not of the same problems, a sample each."""
    one, other = by_problem(first), by_problem(second)
    if one.keys() != other.keys():
        name = min(one.keys() ^ other.keys())
        raise UserError(f"the evaluations are not of the same problems: {name} is in one of them alone")
    for name in one:
        if len(one[name]) != 1 or len(other[name]) != 1:
            counts = f"{len(one[name])} and {len(other[name])}"
            raise UserError(f"evaluations are compared on one sample of each problem; {name} has {counts}")
    return compare([rows[0].correct for rows in one.values()], [other[name][0].correct for name in one])


def by_problem(rows: Iterable[Rollout]) -> dict[str, list[Rollout]]:
    """The samples of each problem, in order."""
    found: dict[str, list[Rollout]] = {}
    for row in rows:
        found.setdefault(row.problem, []).append(row)
    return found


def _passes(samples: Sequence[Rollout], k: int) -> float:
    return pass_at_k(len(samples), sum(row.correct for row in samples), k)


def _majority(samples: Sequence[Rollout], k: int) -> float:
    """Right answers are one however they are written; wrong ones are one where they are written alike."""
    correct = sum(row.correct for row in samples)
    wrong = Counter(row.answer for row in samples if not row.correct and row.answer is not None)
    return maj_at_k(correct, list(wrong.values()), len(samples) - correct - wrong.total(), k)


def _schema() -> pa.Schema:
    """The fields of Rollout."""
    import pyarrow as pa

    return pa.schema(
        [
            pa.field("problem", pa.string(), nullable=False),
            pa.field("prompt", pa.string(), nullable=False),
            pa.field("completion", pa.string(), nullable=False),
            pa.field("gold", pa.string(), nullable=False),
            pa.field("answer", pa.string()),
            pa.field("correct", pa.bool_(), nullable=False),
            pa.field("tokens", pa.int64(), nullable=False),
            pa.field("stopped", pa.bool_(), nullable=False),
        ]
    )


ROLLOUTS = Form(Rollout, _schema)
"""How they lie in a file."""
