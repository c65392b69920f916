"""What formulas, or a step that is played through, say of each plan among which `auto` chooses."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from zerofit.config.strategy import REPLICATED
from zerofit.launch.alternatives import row_of, short_of
from zerofit.launch.contenders import Contenders, extracts
from zerofit.launch.predicting import Timed
from zerofit.plan.calibration import Calibration
from zerofit.plan.choice import Row
from zerofit.plan.closed_form import estimate_memory
from zerofit.plan.fitting import fit, overall
from zerofit.plan.prediction import Memory, Prediction, Speed
from zerofit.plan.spec import RunSpec
from zerofit.predict.rates import Rates, rates_of
from zerofit.predict.seen import Counted, Seen, counted
from zerofit.predict.speed import speed

NEAR = 0.8
"""Of the best one's speed: formulas that nothing of their sort has corrected are off by as much."""


@dataclass(eq=False)
class Weighed:
    """A plan, and what is expected of it."""

    spec: RunSpec
    memory: Memory
    """By formulas, corrected by what was played of the same strategy; or played."""
    counted: Counted | None
    """What its micro-batches take by formulas; null: no speed is predicted."""
    speed: Speed | None = None
    played: bool = False
    """Whether its step was played through, or could not be."""

    @property
    def kind(self) -> tuple[str, str]:
        """Strategy and activation checkpointing."""
        return short_of(self.spec.strategy), self.spec.strategy.activation_checkpointing

    @property
    def sort(self) -> tuple[str, bool]:
        """What its micro-batches compute alike: what is computed again, and whether weights are cast at each use."""
        return self.spec.strategy.activation_checkpointing, self.spec.strategy.name in REPLICATED


@dataclass
class Scales:
    """All plans of a recipe for GPUs, weighed by formulas, and step by step by more."""

    contenders: Contenders
    host_gib: float | None
    rates: Rates
    weighed: list[Weighed]
    calibration: Calibration | None = None
    """What was measured of such cards."""
    timing: Timed | None = None
    """What has played steps of them."""
    _played: list[tuple[Weighed, Seen]] = field(default_factory=list)

    @classmethod
    def of(cls, spec: RunSpec, host_gib: float | None, here: bool, calibration: Calibration | None = None) -> Scales:
        """By formulas; `spec` is a plan of the recipe, of whatever strategy and micro-batch.

        Raises Unpredicted where the model's sizes are not at hand, and UserError as `fit` does.
        """
        contenders, rates = Contenders(spec, here), rates_of(spec.hardware, spec.batches.ranks, calibration)
        assert rates is not None, "it is for GPUs"
        timed = spec.grpo is None and not extracts(spec)
        weighed = [
            Weighed(plan, estimate_memory(plan), counted(plan, rates) if timed else None) for plan in contenders.plans()
        ]
        scales = cls(contenders, host_gib, rates, weighed, calibration)
        scales._time()
        scales._drop_useless()
        return scales

    @property
    def refused(self) -> list[Row]:
        """Plans that the recipe, or the machine, cannot have."""
        return self.contenders.refused

    def rows(self, *, hopeful: bool = False) -> list[Row]:
        """In the order of `weighed`; with `hopeful` as if formulas were as good as a step that is played through."""
        return [self._row(one, hopeful) for one in self.weighed]

    def play(self, one: Weighed, timing: Timed) -> None:
        """Play its step through, and learn from it for the others."""
        before, self.timing = one.memory, timing
        one.memory, one.played = timing.closest(one.spec), True
        ratio = one.memory.peak_gib / before.peak_gib
        for other in self.weighed:
            if not other.played and other.kind == one.kind:
                peak = round(other.memory.peak_gib * ratio, 3)
                other.memory = other.memory.model_copy(update={"peak_gib": peak})
        seen = timing.seen(one.spec)
        if seen is not None and one.counted is not None:
            self._played.append((one, seen))
        self._time()

    def rival(self, top: Weighed) -> Weighed | None:
        """The fastest that comes near and of whose sort no step was played; null: there is none."""
        known = {one.sort for one in self.weighed if one.played}
        rows = {one: row for one, row in zip(self.weighed, self.rows(hopeful=True), strict=True)}
        least = NEAR * (rows[top].samples_s or math.inf)
        able = [
            one
            for one, row in rows.items()
            if row.verdict == "fits" and one.sort not in known and (row.samples_s or 0) >= least
        ]
        return max(able, key=lambda one: rows[one].samples_s or 0, default=None)

    def prediction(self, one: Weighed) -> Prediction:
        """Its own. Raises UserError as `fit` does."""
        found = fit(one.memory, one.spec, self.host_gib, self.calibration)
        return Prediction(peak_gib=one.memory.peak_gib, memory=one.memory, fit=found, speed=one.speed)

    def _row(self, one: Weighed, hopeful: bool) -> Row:
        memory = one.memory.model_copy(update={"exact": one.memory.exact or hopeful})
        found = fit(memory, one.spec, self.host_gib, self.calibration)
        verdict = overall(found)
        fast = None if one.speed is None or verdict == "does not fit" else one.speed.samples_s
        return row_of(
            one.spec,
            peak_gib=round(one.memory.peak_gib, 2),
            needed_gib=found.needed_gib,
            host_gib=round(found.host_needed_gib, 1),
            verdict=verdict,
            samples_s=fast,
            exact=one.memory.exact,
        )

    def _seen(self, one: Weighed, formula: Counted) -> Seen:
        """Of its micro-batches: as played, or by formulas that what was played nearest has corrected."""
        exact = None if self.timing is None else self.timing.seen(one.spec)
        if exact is not None or not self._played:
            return exact or formula

        def apart(other: Weighed) -> tuple[bool, bool]:
            (ours, ours_cast), (theirs, theirs_cast) = one.sort, other.sort
            return ours != theirs, ours_cast != theirs_cast

        nearest, seen = min(self._played, key=lambda played: apart(played[0]))
        assert nearest.counted is not None
        return formula.scaled(seen, nearest.counted)

    def _time(self) -> None:
        for one in self.weighed:
            if one.counted is not None:
                one.speed = speed(one.spec, self._seen(one, one.counted), self.rates)

    def _drop_useless(self) -> None:
        """Every other block is computed again where that makes the difference alone."""
        if len({one.kind[1] for one in self.weighed}) == 1:
            return
        rows = self.rows(hopeful=True)
        short = {
            (row.strategy, row.micro_batch)
            for row in rows
            if (row.activation_checkpointing, row.verdict) == ("none", "does not fit")
        }

        def useful(row: Row) -> bool:
            return row.verdict != "does not fit" and (row.strategy, row.micro_batch) in short

        self.weighed = [
            one
            for one, row in zip(self.weighed, rows, strict=True)
            if row.activation_checkpointing != "selective" or useful(row)
        ]
