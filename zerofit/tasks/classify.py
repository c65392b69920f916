"""Image classification: a ViT or a decoder LLM on patches, fine-tuned or from scratch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from zerofit.config.schema import Recipe
from zerofit.data.images import describe
from zerofit.plan.spec import ImageFacts, RunSpec

if TYPE_CHECKING:
    from zerofit.tasks.loop import Work


class Classify:
    """The task `classify`."""

    def describe(self, recipe: Recipe) -> ImageFacts:
        """Classes and sizes of the recipe's images. Raises UserError where they cannot be used."""
        return describe(recipe.images, recipe.image_model.image_size, recipe.train.seed)

    def restore(self, spec: RunSpec) -> None:
        """Nothing is stored."""

    def train(self, spec: RunSpec, resume: Path | None) -> dict[str, Any]:
        """Train, validate and save as the recipe says, then test; returns result.json's body. Collective."""
        from zerofit.tasks.loop import train

        return train(spec, resume)

    def work(self) -> Work:
        """What it puts into the loop."""
        from zerofit.tasks.online import ImageWork

        return ImageWork()
