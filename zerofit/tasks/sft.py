"""Supervised fine-tuning of a language model: conversations, solutions or plain text, packed or not."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from zerofit.config.schema import Recipe
from zerofit.plan.spec import RunSpec, TextFacts

if TYPE_CHECKING:
    from zerofit.tasks.loop import Work


class Sft:
    """The task `sft`."""

    def describe(self, recipe: Recipe) -> TextFacts:
        """Samples of the recipe's text, tokenised and stored. Raises UserError where it cannot be used."""
        from zerofit.data.text import describe

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
        from zerofit.tasks.tokens import TokenWork

        return TokenWork()
