"""The runs of a comparison: which strategies on how many ranks, and the recipe of each."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zerofit.config.errors import UserError, did_you_mean
from zerofit.config.json_schema import short_strategies
from zerofit.config.optimizer import Warmup
from zerofit.config.profile import Profile
from zerofit.config.schema import Recipe
from zerofit.config.strategy import ZERO_STAGE, parse_strategy
from zerofit.launch.dispatch import default_ranks
from zerofit.launch.few_steps import for_steps
from zerofit.launch.recipe import override
from zerofit.plan.spec import Hardware, ImageFacts, TextFacts

TRACED = 3
"""Steps at the end that are traced, for the exposed communication; of short runs a third."""


@dataclass(frozen=True)
class Case:
    """One run of a comparison."""

    short: str
    """Its strategy's short form: `zero2+offload_optimizer`."""
    ranks: int

    @property
    def label(self) -> str:
        """What it is called."""
        return f"{self.short} x{self.ranks}"

    @property
    def directory(self) -> str:
        """Name of its run directory."""
        return f"{self.short.replace('+', '-')}-x{self.ranks}"


def cases(strategies: str, worlds: str | None, hardware: Hardware, recipe: Recipe) -> list[Case]:
    """Each strategy on each number of ranks, in the order given; `single` is one rank where none is asked for.

    Raises UserError for a word that is none.
    """
    known = short_strategies()
    shorts = list(dict.fromkeys(word.strip() for word in strategies.split(",") if word.strip()))
    for short in shorts:
        if short not in known:
            raise UserError(f"--strategies: {short!r} is no strategy{did_you_mean(short, known)} ({', '.join(known)})")
    if not shorts:
        raise UserError(f"--strategies: names none; there are {', '.join(known)}")
    if worlds is None:
        names = [str(parse_strategy(short)["name"]) for short in shorts]
        return [
            Case(short, default_ranks(name, hardware, recipe.train)) for short, name in zip(shorts, names, strict=True)
        ]
    counts = [word.strip() for word in worlds.split(",") if word.strip()]
    if not counts or not all(re.fullmatch(r"[1-9][0-9]{0,5}", count) for count in counts):
        raise UserError(f"--gpus {worlds}: takes numbers of ranks, at least 1 each: --gpus 1,2,4")
    return [Case(short, ranks) for short in shorts for ranks in sorted({int(count) for count in counts})]


def under(base: Recipe, case: Case) -> Recipe:
    """`base` under that strategy. Raises UserError where it cannot have it."""
    words = [f"strategy={case.short}"]
    if str(parse_strategy(case.short)["name"]) not in ZERO_STAGE:
        words.append("strategy.deepspeed=null")  # says nothing of the others
    return override(base, words)


def recipe_of(
    base: Recipe,
    case: Case,
    facts: ImageFacts | TextFacts,
    run_dir: Path,
    *,
    steps: int,
    traced: bool,
    micro: int | None = None,
) -> Recipe:
    """`base` under that strategy, for so many steps and nothing besides; with `micro` of one such batch a rank.

    Raises UserError where the recipe cannot have the strategy.
    """
    recipe = under(base, case)
    batch: dict[str, Any] = {} if micro is None else {"micro_batch": micro, "global_batch": micro * case.ranks}
    return for_steps(
        recipe.model_copy(update={"train": recipe.train.model_copy(update=batch)}),
        steps,
        run_dir=run_dir,
        optimizer=recipe.optimizer.model_copy(update={"warmup": _warmup(recipe, facts, steps)}),
        profile=Profile(steps=window(steps)) if traced else None,
    )


def window(steps: int) -> tuple[int, int]:
    """First and last step that is traced."""
    return steps - min(TRACED, max(1, steps // 3)) + 1, steps


def _warmup(recipe: Recipe, facts: ImageFacts | TextFacts, steps: int) -> Warmup:
    """The recipe's own, in so few steps as far as they go."""
    warmup = recipe.optimizer.warmup
    if warmup.fraction is not None:
        return warmup
    whole = warmup.steps
    if whole is None:
        assert warmup.epochs is not None, "the schema lets exactly one field be given"
        whole = round(warmup.epochs * (facts.train // recipe.train.global_batch))
    return Warmup(steps=min(whole, steps))
