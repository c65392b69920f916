"""Checkpoints of a run on several ranks: all write into staging, rank 0 commits, rotates and names the best.

A save that fails on any rank fails on all, and is given up: the old checkpoint stays and training goes on.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import torch.distributed as dist
from torch.distributed.checkpoint.api import CheckpointException
from tqdm import tqdm

from zerofit.checkpoint.agreement import LIMIT, Agreement
from zerofit.checkpoint.commit import Best, commit, read_best, record_best, rotate, stage, staging, sweep
from zerofit.checkpoint.room import cause, check_room, last_size, last_step, probe
from zerofit.config.errors import UserError
from zerofit.plan.spec import RunSpec
from zerofit.train.deferred import OutOfStep

FAILURES = 3
"""Failed saves in a row that end the run."""


def written_as(spec: RunSpec) -> dict[str, Any]:
    """What the files in a checkpoint of `spec` depend on: facts in its manifest."""
    return {"strategy": spec.recipe.strategy.name, "world_size": spec.batches.ranks, "precision": spec.precision}


class RunStore:
    """`checkpoints/` of a run directory. Made on every rank; sweeps what a crash left half done.

    A rank waits for the slowest at most `limit`: then the run ends with `Unanswered`.
    """

    def __init__(self, spec: RunSpec, limit: timedelta = LIMIT) -> None:
        self.spec, self.rank = spec, dist.get_rank()
        self.checkpoints = spec.run_dir / "checkpoints"
        self._agreement = Agreement.of_group(limit)
        self._failed = 0
        if self.rank == 0:
            self.checkpoints.mkdir(parents=True, exist_ok=True)
            sweep(self.checkpoints)
        dist.barrier()

    def commit(
        self, step: int, value: float | None, parts: Sequence[Callable[[Path], None]], *, size: int, last: bool
    ) -> None:
        """As `Store.commit` promises."""
        fault = self._attempt(step, value, parts, size)
        if fault is None:
            self._failed = 0
            return
        self._failed += 1
        if self.rank == 0:
            with suppress(OSError):  # what cannot be removed now is swept before the next start
                sweep(self.checkpoints)
        kept = last_step(self.checkpoints)
        stays = "there is none yet" if kept is None else f"the one of step {kept} stays"
        line = f"checkpoint of step {step} was not saved: {fault}; {stays}"
        if not last and self._failed < FAILURES:
            self._say(f"{line}; training goes on")
            return
        why = "it is of the last step" if last else "it is the third in a row"
        advice = "train again" if kept is None else f"go on with: zerofit train --resume {self.spec.run_dir}"
        raise UserError(f"{line}; {why}, so the run stops. Mend the cause, then {advice}")

    def _attempt(
        self, step: int, value: float | None, parts: Sequence[Callable[[Path], None]], size: int
    ) -> str | None:
        """Save; returns which rank failed of what, if any. What disks can say beforehand is asked beforehand."""
        directory = staging(self.checkpoints, step)

        def make_room() -> None:
            check_room(self.checkpoints, last_size(self.checkpoints) or size)
            stage(self.checkpoints, step)

        acts: list[tuple[Callable[[], None], bool]] = [(make_room, self.rank == 0)]  # nobody writes before it is there
        acts.append((partial(probe, directory, self.rank), True))
        acts += [(partial(part, directory), True) for part in parts]
        acts.append((partial(self._settle, directory / f"checkpoint-{step}", step, value), self.rank == 0))
        for act, mine in acts:
            fault = self._agreement.reach(self._try(act, directory) if mine else None)
            if fault is not None:
                return fault
        return None

    def _try(self, act: Callable[[], None], directory: Path) -> str | None:
        """Do it; returns why it failed on this rank, if it did."""
        try:
            act()
        except OutOfStep:
            raise  # peers wait in a collective: only the end of this process lets them go
        except CheckpointException as error:  # raised on all ranks, of what happened on some
            return cause(error.failures[self.rank][0], directory, self.rank) if self.rank in error.failures else None
        except Exception as error:
            return cause(error, directory, self.rank)
        return None

    def _settle(self, written: Path, step: int, value: float | None) -> None:
        """Make what is `written` the checkpoint of `step`. Raises OSError where it does not become one."""
        commit(written, self.checkpoints, step, written_as(self.spec))
        try:
            if value is not None and self._is_best(value):
                record_best(self.checkpoints, Best(step=step, value=value))
            rotate(self.checkpoints, self.spec.recipe.checkpoint.keep, step)
        except (OSError, UserError) as error:
            self._say(f"checkpoint of step {step} is saved, but what comes after it failed: {error}")

    def _is_best(self, value: float) -> bool:
        best = read_best(self.checkpoints)
        if best is None:
            return True
        smaller = self.spec.recipe.evaluate.best_metric == "loss"
        return value < best.value if smaller else value > best.value

    def _say(self, line: str) -> None:
        """Rank 0 writes a line that stays, beside a progress bar as well; a log on the same full drive is no reason."""
        if self.rank == 0:
            with suppress(OSError):
                tqdm.write(line, file=sys.stdout)
                sys.stdout.flush()
