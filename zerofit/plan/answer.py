"""What `zerofit plan` answers, as `--json` prints it; docs/plan.md describes it. Fields are added, never renamed."""

from __future__ import annotations

from typing import Literal

from zerofit.config.section import Section
from zerofit.plan.choice import Choice
from zerofit.plan.measured import Measured
from zerofit.plan.prediction import Prediction, Verdict
from zerofit.plan.spec import Hardware


class Outlook(Section):
    """A strategy, and what the recipe would need under it."""

    strategy: str
    """Its short form: `zero2+offload_optimizer`."""
    own: bool
    """Whether it is the recipe's."""
    ranks: int | None
    """World size; null where it was refused."""
    prediction: Prediction | None
    """Null: none could be made."""
    reason: str | None = None
    """Why there is none, in one line."""


class StagePlan(Section):
    """The plan of a recipe, or of one of its stages."""

    name: str
    """The recipe's, or the stage's."""
    task: str
    """Its task."""
    hardware: Hardware
    """What it is planned for."""
    host_gib: float | None
    """Memory of the host; null: not known."""
    precision: Literal["bf16", "fp16", "fp32"]
    """What is computed in."""
    ranks: int
    """World size under the recipe's own strategy."""
    micro_batch: int
    """Samples per rank and forward."""
    accumulation: int
    """Forwards per optimizer step."""
    global_batch: int
    """Samples per optimizer step."""
    steps: int
    """Optimizer steps."""
    assumed: str | None
    """What was assumed of data that is not there; null: nothing."""
    strategies: tuple[Outlook, ...]
    """The recipe's own first where it is none of the others. Empty on a CPU."""
    measured: Measured | None = None
    """What a few real steps of the recipe's own took, with --measure; null: none were taken."""
    choice: Choice | None = None
    """What was chosen of what the recipe leaves to the planner; null: it leaves nothing."""


class Plan(Section):
    """All stages."""

    version: Literal[1] = 1
    """Version of this format."""
    recipe: str
    """As it was named."""
    stages: tuple[StagePlan, ...]
    """In order."""


class Cell(Section):
    """So many cards of so much memory, and the first strategy in the order of their cost that fits them."""

    gpus: int
    """Cards."""
    memory_gib: float
    """Memory of each."""
    ranks: int | None
    """Of these, how many are used; null where nothing could be planned."""
    verdict: Verdict
    """Of that strategy."""
    strategy: str | None
    """Its short form; null where none fits."""
    prediction: Prediction | None
    """Its prediction."""
    reason: str | None = None
    """Why nothing could be planned."""


class Search(Section):
    """A grid of machines."""

    version: Literal[1] = 1
    """Version of this format."""
    recipe: str
    """As it was named."""
    name: str
    """The recipe's name, or the stage's."""
    cells: tuple[Cell, ...]
    """By cards, then by memory."""
