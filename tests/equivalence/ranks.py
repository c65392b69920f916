"""What every script that is one rank of a start does around its work."""

from __future__ import annotations

import faulthandler
import os
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from zerofit.launch import failure, group, lifeline
from zerofit.launch.environment import World, outer_world


def be_rank(logs: Path, body: Callable[[World], None], limit: float, device: Literal["cpu", "cuda"] = "cpu") -> None:
    """Join the others, do `body`, part and leave; a failure is recorded in `logs`.

    After `limit` seconds, imports included, every thread's stack is printed and the rank ends.
    """
    lifeline.watch()
    world = outer_world(os.environ)
    assert world is not None, "started without run_ranks"

    def work() -> None:
        faulthandler.dump_traceback_later(limit, exit=True)
        group.join(world, device)
        body(world)
        group.leave()

    failure.guard(world.rank, logs, work)
    failure.finish()
