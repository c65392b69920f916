"""Seconds of a step under each of several strategies: what computes alike is played through once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from zerofit.config.strategy import REPLICATED
from zerofit.plan.calibration import Calibration
from zerofit.plan.prediction import Speed
from zerofit.plan.spec import RunSpec
from zerofit.predict.augmenting import augmenting
from zerofit.predict.memory import playable
from zerofit.predict.playing import extracts, play
from zerofit.predict.rates import Rates, rates_of
from zerofit.predict.roofline import Roofline
from zerofit.predict.speed import speed


class Timing:
    """Rooflines of micro-batches, by what decides on a GPU's work in them."""

    def __init__(self, calibration: Calibration | None = None) -> None:
        """With what was measured of the GPU that is planned for, if anything was."""
        self._calibration = calibration
        self._seen: dict[tuple[object, ...], Roofline] = {}

    @contextmanager
    def watching(self, spec: RunSpec) -> Iterator[list[Roofline]]:
        """What is to watch `spec` while it is played through; where its time is known or not predicted, nothing.

        What a play has seen that did not come to its end is not kept.
        """
        rates, kind = self._rates(spec), _kind(spec)
        if rates is None or spec.grpo is not None or extracts(spec) or kind in self._seen:
            yield []
            return
        roofline = Roofline(rates, spec.precision)
        yield [roofline]
        roofline.operations += roofline.micro_steps * augmenting(spec)
        self._seen[kind] = roofline

    def speed(self, spec: RunSpec) -> Speed | None:
        """Of a run; null for rewards, whose rollouts decide, features that are computed once, and a CPU.

        Raises as `play` does.
        """
        with self.watching(spec) as observers:
            if observers:
                play(playable(spec), observers)
        seen, rates = self._seen.get(_kind(spec)), self._rates(spec)
        return None if seen is None or rates is None else speed(spec, seen, rates)

    def seen(self, spec: RunSpec) -> Roofline | None:
        """What was seen of micro-batches that compute as those of `spec` do; null: no such one was played through."""
        return self._seen.get(_kind(spec))

    def _rates(self, spec: RunSpec) -> Rates | None:
        return rates_of(spec.hardware, spec.batches.ranks, self._calibration)


def _kind(spec: RunSpec) -> tuple[object, ...]:
    """Under single and ddp weights are cast at each use; the others compute with weights in the low precision."""
    strategy = spec.strategy
    return strategy.name in REPLICATED, spec.batches.micro, strategy.activation_checkpointing, spec.precision
