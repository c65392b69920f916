"""Seconds of a step under each of several strategies: what computes alike is played through once."""

from __future__ import annotations

from zerofit.plan.prediction import Speed
from zerofit.plan.spec import RunSpec
from zerofit.predict.memory import playable
from zerofit.predict.playing import extracts, play
from zerofit.predict.rates import rates_of
from zerofit.predict.roofline import Roofline
from zerofit.predict.speed import speed

AUTOCAST = ("single", "ddp")
"""Strategies that cast weights at each use; the others compute with weights that are in the low precision already."""


class Timing:
    """Rooflines of micro-batches, by what decides on a GPU's work in them."""

    def __init__(self) -> None:
        self._seen: dict[tuple[object, ...], Roofline] = {}

    def observers(self, spec: RunSpec) -> list[Roofline]:
        """What is to watch a run of `spec` that is played through anyway; nothing where its time is not predicted."""
        roofline = self._roofline(spec)
        if roofline is None or _kind(spec) in self._seen:
            return []
        self._seen[_kind(spec)] = roofline
        return [roofline]

    def speed(self, spec: RunSpec) -> Speed | None:
        """Of a run; null for rewards, whose rollouts decide, features that are computed once, and a CPU.

        Raises as `play` does.
        """
        for roofline in self.observers(spec):
            play(playable(spec), [roofline])
        seen = self._seen.get(_kind(spec))
        return None if seen is None else speed(spec, seen)

    @staticmethod
    def _roofline(spec: RunSpec) -> Roofline | None:
        rates = rates_of(spec.hardware, spec.batches.ranks)
        if rates is None or spec.grpo is not None or extracts(spec):
            return None
        return Roofline(rates, spec.precision)


def _kind(spec: RunSpec) -> tuple[object, ...]:
    strategy = spec.strategy
    return strategy.name in AUTOCAST, spec.batches.micro, strategy.activation_checkpointing, spec.precision
