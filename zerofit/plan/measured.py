"""What `zerofit plan --measure` has measured, and how it corrects what was predicted of the recipe.

Memory is linear in the micro-batch, and so is what a prediction of it misses: a part that is always there (kernels'
workspaces, an engine's buffers) and one for each sample (an operation that keeps more than was counted). Two runs at
two micro-batches tell both.
"""

from __future__ import annotations

from collections.abc import Sequence

from zerofit.config.section import Section
from zerofit.plan.prediction import Fit, Speed, Verdict


class Trial(Section):
    """A few optimizer steps that were taken, beside what was predicted of exactly these."""

    micro_batch: int
    """Samples per rank and forward."""
    accumulation: int
    """Forwards per optimizer step."""
    fits: bool
    """Whether memory sufficed; if not, nothing else was measured."""
    predicted_gib: float | None
    """Peak of allocated memory, GiB; null: none could be predicted."""
    peak_gib: float | None = None
    """The same as it was, of the fullest rank."""
    reserved_gib: float | None = None
    """What the allocator held at most; null on a CPU."""
    predicted_s: float | None
    """Seconds of an optimizer step; null: none could be predicted."""
    step_s: float | None = None
    """Seconds that the last step took."""
    why: str | None = None
    """Where memory ran out, how."""

    @property
    def missed_gib(self) -> float | None:
        """What the prediction left out, GiB; negative where it had too much."""
        return None if self.peak_gib is None or self.predicted_gib is None else self.peak_gib - self.predicted_gib

    @property
    def error(self) -> float | None:
        """Of the predicted peak, as a fraction of the measured one."""
        return None if not self.peak_gib or self.predicted_gib is None else self.predicted_gib / self.peak_gib - 1

    @property
    def error_s(self) -> float | None:
        """Of the predicted time, as a fraction of the measured one."""
        return None if not self.step_s or self.predicted_s is None else self.predicted_s / self.step_s - 1


class Correction(Section):
    """How predictions are to be corrected."""

    offset_gib: float = 0.0
    """GiB that any micro-batch takes beyond its prediction."""
    slope_gib: float = 0.0
    """GiB besides for each sample of a micro-batch."""
    floor: tuple[tuple[int, float], ...] = ()
    """(micro-batch, GiB) that were measured: a larger one takes no less."""
    slack: float | None = None
    """What the allocator kept beyond the peak, as a fraction of it; null: not known."""
    ratio: float | None = None
    """Measured time over predicted, at the largest micro-batch that was measured; null: not known."""

    def peak_gib(self, predicted: float, micro: int) -> float:
        """Of a run whose peak was predicted, GiB."""
        least = max((gib for size, gib in self.floor if size <= micro), default=0.0)
        return max(least, predicted + self.offset_gib + self.slope_gib * micro)

    def speed(self, predicted: Speed) -> Speed | None:
        """Of a run whose speed was predicted, its parts apart; null where no time was measured."""
        if self.ratio is None:
            return None
        step, rate = predicted.step_s * self.ratio, predicted.samples_s / self.ratio
        return predicted.model_copy(update={"step_s": round(step, 6), "samples_s": round(rate, 3), "rates": "measured"})


def correction(trials: Sequence[Trial]) -> Correction:
    """What trials at different micro-batches tell together: of two a line, of one its distance, of none nothing."""
    held = sorted((one for one in trials if one.fits), key=lambda one: one.micro_batch)
    missed = [(one.micro_batch, gib) for one in held if (gib := one.missed_gib) is not None]
    slope = 0.0
    if len(missed) > 1:
        (less, low), (more, high) = missed[0], missed[-1]
        slope = (high - low) / (more - less)
    kept = [one.reserved_gib / one.peak_gib - 1 for one in held if one.reserved_gib and one.peak_gib]
    timed = [one.step_s / one.predicted_s for one in held if one.step_s and one.predicted_s]
    return Correction(
        offset_gib=missed[0][1] - slope * missed[0][0] if missed else 0.0,
        slope_gib=slope,
        floor=tuple((one.micro_batch, one.peak_gib) for one in held if one.peak_gib is not None),
        slack=max(0.0, *kept) if kept else None,
        ratio=timed[-1] if timed else None,
    )


class Measured(Section):
    """What was measured of a recipe, and what it comes to."""

    strategy: str
    """Its short form."""
    ranks: int
    """World size."""
    micro_batch: int
    """The recipe's own."""
    weights: str
    """What weights the trials began with."""
    steps: int
    """Optimizer steps of each trial."""
    trials: tuple[Trial, ...]
    """By micro-batch."""
    correction: Correction
    """How far predictions were off."""
    predicted_gib: float | None
    """The peak that was predicted of the recipe, GiB; null: none."""
    peak_gib: float | None
    """Corrected; null: none was predicted, or no trial fitted."""
    fit: Fit | None
    """Whether that fits."""
    speed: Speed | None
    """Corrected; null: none was predicted or measured."""
    verdict: Verdict | None
    """As `fit` says, or `does not fit` where a trial ran out of memory that took no more; null: not known."""
