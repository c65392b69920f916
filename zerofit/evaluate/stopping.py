"""How ranks that meet nowhere stop together: who is asked to leaves a file among the parts, and all look for it."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from zerofit.train.pulse import PULSE

PATIENCE = 10.0
"""Seconds that a part may take until it is done, once ranks are to stop."""


class LeftUndone(Exception):
    """A part takes too long to wait for: it is made again when the evaluation goes on."""


class Stop:
    """Of one rank."""

    def __init__(self, directory: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self.path, self.clock = directory / "stop", clock
        self._since: float | None = None

    def clear(self) -> None:
        """Forget what an earlier start was asked."""
        self.path.unlink(missing_ok=True)

    def asked(self, phase: str) -> bool:
        """Say where this rank is; whether it, or another, has been asked to stop."""
        if PULSE.asked(phase):
            self.path.touch()
        if self._since is None and self.path.exists():
            self._since = self.clock()
        return self._since is not None

    def wait_no_longer(self, phase: str) -> None:
        """As `asked`, amid a part. Raises LeftUndone where that was long ago."""
        if self.asked(phase) and self._since is not None and self.clock() - self._since > PATIENCE:
            raise LeftUndone
