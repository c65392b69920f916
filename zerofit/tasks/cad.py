"""CAD models told in text, point clouds and images, written as command sequences (CAD-MLLM, Xu et al. 2024)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from zerofit.config.schema import Recipe
from zerofit.plan.spec import CadFacts, RunSpec

if TYPE_CHECKING:
    from zerofit.tasks.loop import Work


class CadTask:
    """The task `cad`."""

    def describe(self, recipe: Recipe) -> CadFacts:
        """Samples of the recipe's models, with what rows see of them, stored. Raises UserError."""
        from zerofit.data.cad import describe

        return describe(recipe)

    def restore(self, spec: RunSpec) -> None:
        """Samples whose cache was cleared are made again. Raises UserError where others come out."""
        from zerofit.data.cad import restore

        restore(spec.recipe, spec.cad)

    def train(self, spec: RunSpec, resume: Path | None) -> dict[str, Any]:
        """Train, validate and save as the recipe says, then test; returns result.json's body. Collective."""
        from zerofit.tasks.loop import train

        return train(spec, resume)

    def work(self) -> Work:
        """What it puts into the loop."""
        from zerofit.tasks.commands import CommandWork

        return CommandWork()
