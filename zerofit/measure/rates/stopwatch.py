"""Seconds that a call takes on a device, of calls one after another."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch

BATCHES = 3
"""Rows of calls of which the middle one counts: one that something came into does not."""


def seconds(work: Callable[[], object], device: torch.device, budget: float) -> float:
    """Of one call of `work`, which is made twice to warm up and then for about `budget` seconds, once a row at least.

    On a GPU by events in its stream, so that calls that are shorter than their launch are hidden by none: what is
    found then is the launch.
    """
    work()
    first = row(work, device, 1)
    calls = max(1, int(budget / BATCHES / max(first, 1e-7)))
    return max(1e-9, statistics.median(row(work, device, calls) for _ in range(BATCHES)) / calls)


def row(work: Callable[[], object], device: torch.device, calls: int) -> float:
    """Seconds of so many calls, one after another."""
    if device.type != "cuda":
        started = time.perf_counter()
        for _ in range(calls):
            work()
        return time.perf_counter() - started
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    torch.cuda.synchronize(device)
    begin.record()
    for _ in range(calls):
        work()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end) / 1000
