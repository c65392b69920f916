"""GRPO: a language model learns from what its own completions are worth."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from zerofit.config.schema import Recipe
from zerofit.plan.spec import RunSpec, TextFacts

if TYPE_CHECKING:
    from zerofit.tasks.loop import Work


class GrpoTask:
    """The task `grpo`."""

    def describe(self, recipe: Recipe) -> TextFacts:
        """Prompts of the rows, tokenised and stored. Raises UserError where they or a reward cannot be used."""
        from zerofit.data.text import describe
        from zerofit.tasks.rewards import Rewards

        assert recipe.grpo is not None
        Rewards(recipe.grpo.rewards)
        return describe(recipe)

    def restore(self, spec: RunSpec) -> None:
        """Samples whose cache was cleared are made again. Raises UserError where others come out."""
        from zerofit.data.text import restore

        restore(spec.recipe, spec.text)

    def train(self, spec: RunSpec, resume: Path | None) -> dict[str, Any]:
        """Train, validate and save as the recipe says, then test; returns result.json's body. Collective."""
        from zerofit.tasks.loop import train

        return train(spec, resume)

    def work(self) -> Work:
        """What it puts into the loop."""
        from zerofit.tasks.rollouts import RolloutWork

        return RolloutWork()
