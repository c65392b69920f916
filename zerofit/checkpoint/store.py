"""Checkpoints of a run on several ranks: all write into staging, rank 0 commits, rotates and names the best.

Training waits while ranks write, to memory where it allows (`memory`, `train.writes`); behind training a thread of
each rank brings that to the drive, and rank 0's hashes and commits it. A save that fails on any rank fails on all, and
is given up: the old checkpoint stays and training goes on.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import torch.distributed as dist
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from tqdm import tqdm

from zerofit.checkpoint import memory
from zerofit.checkpoint.agreement import LIMIT, Agreement
from zerofit.checkpoint.commit import Best, commit, read_best, record_best, rotate, stage, staging, sweep
from zerofit.checkpoint.room import cause, check_room, last_size, last_step, probe
from zerofit.checkpoint.stream import write_tensors
from zerofit.config.errors import UserError
from zerofit.plan.spec import RunSpec
from zerofit.train.deferred import OutOfStep
from zerofit.train.job import Part
from zerofit.train.pulse import PULSE
from zerofit.train.writes import AtOnce, Later, Writes

FAILURES = 3
"""Failed saves in a row that end the run."""


def written_as(spec: RunSpec) -> dict[str, Any]:
    """What the files in a checkpoint of `spec` depend on: facts in its manifest."""
    return {"strategy": spec.strategy.name, "world_size": spec.batches.ranks, "precision": spec.precision}


@dataclass(frozen=True)
class Behind:
    """What goes on behind training; with a promise of the first rank's failure, if any failed."""

    step: int
    promise: Future[str | None]


class RunStore:
    """`checkpoints/` of a run directory. Made on every rank; sweeps what a crash left half done.

    A rank waits for the slowest at most `limit`: then the run ends with `Unanswered`.
    """

    def write_tensors(self, tensors: Mapping[str, Tensor], path: Path) -> None:
        """As `Store.write_tensors` promises."""
        write_tensors(tensors, path)

    def __init__(self, spec: RunSpec, limit: timedelta = LIMIT) -> None:
        self.spec, self.rank = spec, dist.get_rank()
        self.checkpoints = spec.run_dir / "checkpoints"
        self.saves: list[dict[str, float]] = []
        """Of rank 0's saves: `step`, `blocked_s` (training waited), `behind_s` (it did not), `bytes`."""
        self._agreement, self._behind_agreement = Agreement.of_group(limit), Agreement.of_group(limit)
        self._failed = 0
        self._behind: Behind | None = None
        self._held: memory.Room | None = None  # by rank 0
        self._thread = ThreadPoolExecutor(1, "checkpoints")
        if self.rank == 0:
            self.checkpoints.mkdir(parents=True, exist_ok=True)
            sweep(self.checkpoints)
            memory.sweep()
        dist.barrier()

    def commit(self, step: int, value: float | None, parts: Sequence[Part], *, size: int, last: bool) -> None:
        """As `Store.commit` promises."""
        started = time.monotonic()
        self.finish()
        room = self._room(last_size(self.checkpoints) or size, last)
        fault, later = self._write(step, parts, size, room)
        if fault is not None and room is not None:  # others may have taken the memory meanwhile: the drive is left
            room, (fault, later) = None, self._write(step, parts, size, None)
        if fault is not None:
            self._judge(step, fault, last)
            return
        blocked = time.monotonic() - started
        self._behind = Behind(step, self._thread.submit(self._settle, step, value, room, later, blocked))
        if last or PULSE.agreed or not self.spec.recipe.checkpoint.async_save:
            self.finish(last=last)

    def finish(self, last: bool = False) -> None:
        """As `Store.finish` promises."""
        if self._behind is not None:
            behind, self._behind = self._behind, None
            self._judge(behind.step, behind.promise.result(), last)

    def close(self) -> None:
        """Wait for what this rank has still to write, however the run ended."""
        self._thread.shutdown()

    def _judge(self, step: int, fault: str | None, last: bool) -> None:
        """Count a save that failed of `fault` (null: it went well). Raises UserError as `Store.commit` promises."""
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

    def _room(self, size: int, last: bool) -> Path | None:
        """Where in memory ranks write; null: to the drive. Rank 0 says."""
        if last or PULSE.agreed or not self.spec.recipe.checkpoint.async_save:
            return None
        path: list[Path | None] = [None]
        if self.rank == 0 and memory.allows(size, self.checkpoints):
            with suppress(OSError):
                self._held = memory.Room()
                path[0] = self._held.path
        dist.broadcast_object_list(path, src=0)
        return path[0]

    def _leave_room(self) -> None:
        if self._held is not None:
            self._held.close()
            self._held = None

    def _write(
        self, step: int, parts: Sequence[Part], size: int, room: Path | None
    ) -> tuple[str | None, Callable[[], None]]:
        """Let ranks write; which failed of what, if any, and what this rank has still to do behind training.

        What disks can say beforehand is asked beforehand.
        """
        directory = staging(self.checkpoints, step)
        there = room or directory
        later = Later(there, directory)
        writes: Writes = AtOnce() if room is None else later

        def make_room() -> None:
            check_room(self.checkpoints, last_size(self.checkpoints) or size)
            stage(self.checkpoints, step)

        acts: list[tuple[Callable[[], None], bool]] = [(make_room, self.rank == 0)]  # nobody writes before it is there
        acts.append((partial(probe, directory, self.rank), True))
        acts.append((partial(probe, there, self.rank), room is not None))  # another host has other memory
        acts += [(partial(part, there, writes), True) for part in parts]
        for act, mine in acts:
            fault = self._agreement.reach(self._try(act, there) if mine else None)
            if fault is not None:
                self._leave_room()
                return fault, Later(there, directory).run
        return None, later.run

    def _try(self, act: Callable[[], object], directory: Path) -> str | None:
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

    def _settle(
        self, step: int, value: float | None, room: Path | None, later: Callable[[], None], blocked: float
    ) -> str | None:
        """Make what is written the checkpoint of `step`, on the drive. In a thread of every rank; why not, if not."""
        started, directory = time.monotonic(), staging(self.checkpoints, step)
        written = directory / f"checkpoint-{step}"

        def move() -> None:
            if room is not None and self.rank == 0:
                try:
                    memory.move(room / written.name, written)
                finally:
                    self._leave_room()
            later()

        fault = self._behind_agreement.reach(self._try(move, directory))
        if fault is None:
            act = partial(commit, written, self.checkpoints, step, written_as(self.spec))
            fault = self._behind_agreement.reach(self._try(act, directory) if self.rank == 0 else None)
        if fault is not None or self.rank > 0:
            return fault
        behind, size = time.monotonic() - started, last_size(self.checkpoints) or 0
        self.saves.append({"step": step, "blocked_s": round(blocked, 3), "behind_s": round(behind, 3), "bytes": size})
        try:
            if value is not None and self._is_best(value):
                record_best(self.checkpoints, Best(step=step, value=value))
            rotate(self.checkpoints, self.spec.recipe.checkpoint.keep, step)
        except (OSError, UserError) as error:
            self._say(f"checkpoint of step {step} is saved, but what comes after it failed: {error}")
        return None

    def _is_best(self, value: float) -> bool:
        best = read_best(self.checkpoints)
        if best is None:
            return True
        smaller = self.spec.recipe.best_metric == "loss"
        return value < best.value if smaller else value > best.value

    def _say(self, line: str) -> None:
        """Rank 0 writes a line that stays, beside a progress bar as well; a log on the same full drive is no reason."""
        if self.rank == 0:
            with suppress(OSError):
                tqdm.write(line, file=sys.stdout)
                sys.stdout.flush()
