"""What the planner chose where a recipe says auto, and out of what: goes into run.json."""

from __future__ import annotations

from zerofit.config.section import Section
from zerofit.plan.prediction import Verdict


class Row(Section):
    """One way to do the work."""

    strategy: str
    """Its short form: `zero2+offload_optimizer`."""
    micro_batch: int
    """Samples per rank and forward."""
    accumulation: int
    """Forwards per optimizer step."""
    activation_checkpointing: str
    """none, selective or full."""
    peak_gib: float | None = None
    """Peak of a card, GiB; null: not predicted."""
    needed_gib: float | None = None
    """With what comes on top (docs/plan.md), GiB."""
    host_gib: float | None = None
    """Host memory of all ranks, GiB."""
    verdict: Verdict | None = None
    """The worse of the card's and the host's."""
    samples_s: float | None = None
    """Samples per second of all ranks together; null: not predicted."""
    exact: bool = False
    """Whether its step was played through; false: peak and speed are by formulas."""
    reason: str | None = None
    """Why it cannot be, or is not predicted, in one line."""

    @property
    def words(self) -> str:
        """`zero2, micro-batch 8 x 2, no activation checkpointing`."""
        kept = self.activation_checkpointing
        said = "no" if kept == "none" else kept
        return f"{self.strategy}, micro-batch {self.micro_batch} x {self.accumulation}, {said} activation checkpointing"


class Choice(Section):
    """What was chosen, and why."""

    why: str
    """In one line, with the runner-up."""
    chosen: Row | None = None
    """The one that is used; null where a rule chose, as on a CPU."""
    runner_up: Row | None = None
    """The best of another strategy, else of another micro-batch or checkpointing; null: there is none that fits."""
    table: tuple[Row, ...] = ()
    """All that were weighed, strategies in the order of what they cost."""
