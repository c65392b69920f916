"""The kinds of work, by the name that a recipe gives in `task`.

The launcher describes data, and ranks train: what training needs is imported there.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from zerofit.config.schema import Recipe
from zerofit.plan.spec import ImageFacts, RunSpec, TextFacts
from zerofit.tasks.cad import CadTask
from zerofit.tasks.classify import Classify
from zerofit.tasks.grpo import GrpoTask
from zerofit.tasks.probe import Probe
from zerofit.tasks.sft import Sft

if TYPE_CHECKING:
    from zerofit.tasks.loop import Work


class Task(Protocol):
    """One kind of work."""

    def describe(self, recipe: Recipe) -> ImageFacts | TextFacts:
        """What the recipe's data holds. Raises UserError where it cannot be used."""

    def restore(self, spec: RunSpec) -> None:
        """Make again what `describe` has stored, where it is gone. Raises UserError where it comes out otherwise."""

    def train(self, spec: RunSpec, resume: Path | None) -> dict[str, Any]:
        """Train, on every rank of an initialised world; returns result.json's body, equal on every rank."""

    def work(self) -> Work:
        """What it puts into the loop (loop.py)."""


TASKS: dict[str, Task] = {"classify": Classify(), "probe": Probe(), "sft": Sft(), "grpo": GrpoTask(), "cad": CadTask()}
