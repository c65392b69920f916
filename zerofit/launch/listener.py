"""What a rank does about signals once its work has begun: the first asks all ranks to save and stop.

A thread hears of them (Python's wake-up descriptor), so that one whose main thread waits for its peers listens as well.
Until the first step, batch or evaluation signals do what they did before.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable

from zerofit.launch.watchdog import Watchdog

ASKING = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
"""Signals that ask to save and stop; a second one ends at once."""
ECHO = 1.0
"""Seconds in which a signal that comes again is the same one: schedulers signal a launcher, which passes it on, and its
ranks as well."""


class Listener:
    """Of this rank. `end` ends the process, with the signal that asked for it."""

    def __init__(self, watchdog: Watchdog, end: Callable[[int], None], grace: float, *, again: bool) -> None:
        self.watchdog, self.end, self.grace = watchdog, end, grace
        self.again = again
        """Whether a second signal ends the rank; under our own launcher that is the launcher's to do."""
        self._begun = self._deaf = False
        self._first: int | None = None

    def at(self, phase: str) -> None:
        """Work goes on, and is now at `phase`. The first call, in the main thread, takes the signals over."""
        if not self._begun:
            self._begun = True
            self._listen()
            self.watchdog.start()
        self.watchdog.at(phase)

    def asked(self) -> bool:
        """Whether this rank has been asked to stop."""
        return self._first is not None

    def deafen(self) -> None:
        """All is saved: let nothing come between this rank and its end."""
        self._deaf = True
        self.watchdog.stop()

    def _listen(self) -> None:
        read, write = os.pipe()
        os.set_blocking(write, False)
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        for number in ASKING:
            signal.signal(number, lambda *_: None)
            signal.siginterrupt(number, False)  # libraries in C++ need not notice
        threading.Thread(target=self._hear, args=(read,), name="listener", daemon=True).start()

    def _hear(self, read: int) -> None:
        since = 0.0
        while True:
            for number in os.read(read, 64):
                if number not in ASKING or self._deaf:
                    continue
                if self._first is None:
                    self._first, since = number, time.monotonic()
                    over = threading.Timer(self.grace, self._give_up)
                    over.daemon = True
                    over.start()
                elif self.again and time.monotonic() - since > ECHO:
                    self.end(number)

    def _give_up(self) -> None:
        if not self._deaf:
            assert self._first is not None
            self.end(self._first)
