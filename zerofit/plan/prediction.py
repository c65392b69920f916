"""What is predicted of a run: goes into run.json, beside what is measured later."""

from __future__ import annotations

from typing import Literal

from zerofit.config.section import Section

Verdict = Literal["fits", "tight", "does not fit"]


class Memory(Section):
    """Of the rank that needs most; GiB."""

    peak_gib: float
    """Allocated at the fullest moment, by the device's allocator."""
    phase: str
    """When that is: init, forward, backward, step, rollout, evaluation or save."""
    split: dict[str, float]
    """What it is for, at that moment: weights, gradients, optimizer, buckets, gathered, activations, logits,
    kv_cache, other."""
    phases: dict[str, float]
    """The peak of each phase."""
    host_gib: float
    """Host memory of all ranks together: what engines hold there (offload, pinned buffers) and what processes take."""
    exact: bool
    """From a run of fake tensors; false: from formulas alone."""
    not_modelled: tuple[str, ...] = ()
    """What the run has that the prediction does not: one phrase each."""


class Fit(Section):
    """Whether it fits the card, with the numbers behind it; GiB."""

    verdict: Verdict
    """fits: with the allocator's slack; tight: without it alone; does not fit: neither."""
    needed_gib: float
    """Peak with the allocator's slack, the CUDA context and communicators."""
    least_gib: float
    """The same without the slack."""
    card_gib: float
    """What the card has, or the recipe's cap."""
    host_needed_gib: float
    """Host memory of all ranks."""
    host_gib: float | None
    """What the host has; null: not known."""
    host_verdict: Verdict
    """The same for host memory."""
    outside_gib: float | None = None
    """Of the card what no tensor gets: CUDA's context, and communicators of several ranks; null: a plan of an earlier
    version does not say."""
    outside_from: str = "shipped"
    """Where that comes from: shipped, or `calibrated 2026-11-29`."""


class Speed(Section):
    """Of an optimizer step."""

    step_s: float
    """Seconds of an optimizer step."""
    samples_s: float
    """Samples per second of all ranks together."""
    error: float
    """Half-width of the band that measured steps lay in, as a fraction."""
    parts: dict[str, float]
    """Seconds of compute, communication that nothing hides, optimizer, offload and host. Of the passes the GPU's or the
    host's count, whichever are more, and of the update as well (predict/speed.py)."""
    rates: str = "shipped"
    """Where the rates come from: shipped, or `calibrated 2026-11-29`."""


class Prediction(Section):
    """Of a run, as planned."""

    peak_gib: float
    """As `memory.peak_gib`; what result.json's `peak_alloc_gib` is compared with."""
    memory: Memory
    """Memory."""
    fit: Fit
    """Whether it fits."""
    speed: Speed | None = None
    """Time; null: not predicted."""
    levers: tuple[str, ...] = ()
    """The three changes that lower the peak most, each with what it would come to: `train.micro_batch=2: 18.4 GiB`; by
    formulas with a ~ before the figure."""

    def against(self, measured_gib: float) -> dict[str, float]:
        """The peak beside what was measured, and its error as a fraction of that: result.json's `prediction`."""
        error = round(self.peak_gib / measured_gib - 1, 4)
        return {"peak_gib": self.peak_gib, "measured_gib": measured_gib, "error": error}


class Unpredicted(Exception):
    """Why there is no prediction, in a line; never the user's fault, and never a reason not to run."""


class TooLong(Unpredicted):
    """A step of the model has more operations than can be played through, whatever the strategy."""
