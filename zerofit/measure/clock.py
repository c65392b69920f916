"""How long a piece of every step takes: on a GPU by events in its stream, so that nothing waits for it."""

from __future__ import annotations

import time
from typing import Protocol

import torch


class Clock(Protocol):
    """Adds up the time between `start` and `stop`."""

    def start(self) -> None:
        """The piece begins."""

    def stop(self) -> None:
        """It has ended."""

    def read(self) -> float:
        """Seconds since the last reading. To be read once the device has come past the last `stop`."""


class HostClock:
    """On a CPU."""

    def __init__(self) -> None:
        self._since, self._total = 0.0, 0.0

    def start(self) -> None:
        """As `Clock` says."""
        self._since = time.perf_counter()

    def stop(self) -> None:
        """As `Clock` says."""
        self._total += time.perf_counter() - self._since

    def read(self) -> float:
        """As `Clock` says."""
        total, self._total = self._total, 0.0
        return total


class StreamClock:
    """On a GPU. What the host does in between counts as well: the stream comes to the second event only after it."""

    def __init__(self) -> None:
        self._pairs: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []

    def start(self) -> None:
        """As `Clock` says."""
        pair = (torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True))
        pair[0].record()
        self._pairs.append(pair)

    def stop(self) -> None:
        """As `Clock` says."""
        self._pairs[-1][1].record()

    def read(self) -> float:
        """As `Clock` says."""
        pairs, self._pairs = self._pairs, []
        if pairs:
            pairs[-1][1].synchronize()
        return sum(first.elapsed_time(last) for first, last in pairs) / 1000


class NoClock:
    """Where nobody reads: events that nobody asks about would only pile up."""

    def start(self) -> None:
        """As `Clock` says."""

    def stop(self) -> None:
        """As `Clock` says."""

    def read(self) -> float:
        """As `Clock` says."""
        return 0.0


def clock_for(device: torch.device, *, read: bool) -> Clock:
    """The clock of a device, on a rank that reads it or one that does not."""
    if not read:
        return NoClock()
    return StreamClock() if device.type == "cuda" else HostClock()
