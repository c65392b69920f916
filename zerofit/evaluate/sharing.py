"""How ranks share an evaluation: each makes some of the missing parts, and all wait until every part is there."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress

import torch.distributed as dist

from zerofit.evaluate.parts import Part, Parts
from zerofit.evaluate.stopping import LeftUndone, Stop
from zerofit.evaluate.watching import Shown, Watching
from zerofit.measure.parquet_rows import Row
from zerofit.train.pulse import PULSE

WAIT = 0.2
"""Seconds between two looks at what the other ranks have written."""
Tell = Callable[[int], None]
"""Is told how many rows of a part are done."""
Make = Callable[[int, Tell], list[Row]]
"""Makes the rows of a part, by its number."""


def share(
    parts: Parts[Row],
    shown: Shown[Row],
    at_work: Callable[[], AbstractContextManager[Make[Row]]],
    finish: Callable[[], None],
) -> None:
    """Have the parts that are missing made, then `finish`, by rank 0. Collective. Raises Stopped, and UserError.

    `at_work` is collective, too; it is entered where anything is missing, by all ranks.
    """
    stop = Stop(parts.directory)
    left = _missing(parts, stop)
    rank, ranks = dist.get_rank(), dist.get_world_size()
    watching = Watching(parts, shown, visible=rank == 0)
    if left:
        with suppress(LeftUndone), at_work() as make:
            _make(parts, left[rank::ranks], make, stop, watching)
    while len(parts.done()) < len(parts.problems) and not stop.asked("waiting for the other ranks"):
        watching.look()
        time.sleep(WAIT)
    watching.look()
    watching.close()
    PULSE.leave_if_asked("the end of the evaluation")
    if rank == 0:
        finish()
    dist.barrier()


def _missing(parts: Parts[Row], stop: Stop) -> list[int]:
    """As rank 0 finds them. Collective."""
    found: list[list[int]] = [[]]
    if dist.get_rank() == 0:
        found = [parts.take_stock()]
        stop.clear()
    dist.broadcast_object_list(found, src=0)
    return found[0]


def _make(parts: Parts[Row], mine: list[int], make: Make[Row], stop: Stop, watching: Watching[Row]) -> None:
    """Write the parts `mine`, until a rank is asked to stop. Raises LeftUndone."""
    for number in mine:
        if stop.asked(f"part {number}"):
            return
        started = time.monotonic()

        def tell(done: int, number: int = number) -> None:
            stop.wait_no_longer(f"part {number}, {done} {watching.shown.unit}")
            watching.made(done)

        rows = make(number, tell)
        parts.write(number, Part(rows, time.monotonic() - started, dist.get_world_size()))
        watching.look()
