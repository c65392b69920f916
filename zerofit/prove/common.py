"""The one micro-batch of a comparison whose recipe leaves it to the planner: every row does the same work with it."""

from __future__ import annotations

from collections.abc import Sequence
from math import gcd
from pathlib import Path

from zerofit.config.errors import UserError
from zerofit.config.schema import Recipe
from zerofit.config.strategy import AUTO
from zerofit.plan.auto import USUAL, divisors
from zerofit.plan.build import make_plan
from zerofit.plan.closed_form import estimate_memory
from zerofit.plan.fitting import fit, overall
from zerofit.plan.hardware import host_memory_gib
from zerofit.plan.prediction import Unpredicted
from zerofit.plan.spec import Hardware, ImageFacts, RunSpec, TextFacts
from zerofit.prove.cases import Case, under


def common(base: Recipe, cases: Sequence[Case], facts: ImageFacts | TextFacts, hardware: Hardware) -> Recipe:
    """`base` with what it leaves to the planner settled, the same for every case.

    The largest micro-batch with which, by formulas, as many cases fit as can; blocks are computed again only where more
    of them fit so. On a CPU, and where nothing is predicted, the largest up to `USUAL`. Numbers of ranks that do not
    divide the global batch do not count: their rows are refused whatever the micro-batch.
    """
    if base.train.micro_batch != AUTO:
        return base
    whole = base.train.global_batch
    possible = divisors(gcd(*(whole // case.ranks for case in cases if whole % case.ranks == 0)) or 1)
    usual = _with(base, max(one for one in possible if one <= USUAL))
    if hardware.device != "cuda":
        return usual
    said = base.strategy.activation_checkpointing
    again = ("none", "full") if said == AUTO else (said,)
    tried = [_with(base, micro, recomputed) for recomputed in again for micro in possible]
    counts = [_fitting(one, cases, facts, hardware) for one in tried]
    if not any(counts):
        return usual
    return max(
        (one for one, count in zip(tried, counts, strict=True) if count == max(counts)),
        key=lambda one: (one.strategy.activation_checkpointing == "none", one.train.micro_batch),
    )


def _with(base: Recipe, micro: int, recomputed: str | None = None) -> Recipe:
    strategy = base.strategy
    if recomputed is not None:
        strategy = strategy.model_copy(update={"activation_checkpointing": recomputed})
    train = base.train.model_copy(update={"micro_batch": micro})
    return base.model_copy(update={"train": train, "strategy": strategy})


def _fitting(base: Recipe, cases: Sequence[Case], facts: ImageFacts | TextFacts, hardware: Hardware) -> int:
    """How many of the cases fit."""
    host, fitting, like = host_memory_gib(), 0, None
    for case in cases:
        try:
            spec: RunSpec = make_plan(
                under(base, case),
                facts=facts,
                hardware=hardware,
                ranks=case.ranks,
                run_dir=Path("runs"),
                here=False,
                like=like,
            )
            fitting += overall(fit(estimate_memory(spec), spec, host)) == "fits"
        except (UserError, Unpredicted):
            continue
        like = spec
    return fitting
