"""A ledger of bytes that are alive on a device, or on the host, while a run is played through.

What an engine allocates is opened and closed as accounts; what a model's own operations allocate is counted by
`zerofit.predict.watch` and booked here as well.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["weights", "gradients", "optimizer", "buckets", "gathered", "activations", "logits", "kv_cache", "other"]
"""What bytes are for. `gathered`: whole weights and gradients of layers whose shares lie on several ranks, while they
are in use. `other`: inputs, workspaces, and what an optimizer makes for a moment."""
Phase = Literal["init", "forward", "backward", "step", "rollout", "evaluation", "save"]


@dataclass(frozen=True)
class Moment:
    """The fullest moment of a phase."""

    total: int
    """Bytes alive."""
    split: dict[Kind, int]
    """What they are for; only kinds that have any."""


class Account:
    """Bytes that were opened in a ledger, and are there until they are closed."""

    def __init__(self, ledger: Ledger, kind: Kind, size: int) -> None:
        self._ledger, self.kind, self.size = ledger, kind, size

    def resize(self, size: int) -> None:
        """As a tensor that is made again, larger or smaller, without both being there at once."""
        self._ledger._book(self.kind, size - self.size)
        self.size = size

    def become(self, kind: Kind) -> None:
        """The same bytes are for something else from now on."""
        size = self.size
        self.resize(0)
        self.kind = kind
        self.resize(size)

    def close(self) -> None:
        """Free them; twice is once."""
        self.resize(0)


class Ledger:
    """Bytes alive by kind, and the fullest moment of each phase."""

    def __init__(self, phase: Phase = "init") -> None:
        self.phase: Phase = phase
        self.now: dict[Kind, int] = {}
        self.total = 0
        self.peaks: dict[Phase, Moment] = {}

    def open(self, kind: Kind, size: int) -> Account:
        """Allocate `size` bytes."""
        assert size >= 0, "an allocation has a size"
        account = Account(self, kind, 0)
        account.resize(size)
        return account

    def enter(self, phase: Phase) -> None:
        """What is alive goes on into the next phase, and counts there."""
        self.phase = phase
        self._note()

    @property
    def fullest(self) -> tuple[Phase, Moment]:
        """The phase with the highest peak, and that."""
        phase = max(self.peaks, key=lambda name: self.peaks[name].total)
        return phase, self.peaks[phase]

    def _book(self, kind: Kind, change: int) -> None:
        self.now[kind] = self.now.get(kind, 0) + change
        self.total += change
        if change > 0:
            self._note()

    def _note(self) -> None:
        known = self.peaks.get(self.phase)
        if known is None or self.total > known.total:
            self.peaks[self.phase] = Moment(self.total, {kind: size for kind, size in self.now.items() if size})
