"""Ends a run that hangs, and says where: a thread of each rank that misses optimizer steps and batches.

Each rank writes the stacks of its threads to its log, NCCL's flight recorder to logs/nccl_trace_rank_N (for
torchfrtrace), and where it is to logs/rank-N.stalled.json. Who leaves no such file, or is furthest behind, is to blame.
"""

from __future__ import annotations

import faulthandler
import json
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from zerofit.launch.environment import World
from zerofit.launch.failure import Failure

ANSWER = 10.0
"""Seconds in which the other ranks are to have noticed as well, at most."""


@dataclass(frozen=True)
class Place:
    """How far a rank has come."""

    count: int
    """Phases so far: the lowest is furthest behind."""
    phase: str


class Watchdog:
    """Of this rank; `limit` is in seconds, 0 for none. `end` ends the process."""

    def __init__(self, world: World, logs: Path, limit: float, end: Callable[[Failure], None], *, nccl: bool) -> None:
        self.world, self.logs, self.limit, self.end, self.nccl = world, logs, limit, end, nccl
        self.place = Place(0, "")
        self._stopped = threading.Event()

    def at(self, phase: str) -> None:
        """Work goes on."""
        self.place = Place(self.place.count + 1, phase)

    def start(self) -> None:
        """Watch from now on."""
        if self.limit > 0:
            threading.Thread(target=self._watch, name="watchdog", daemon=True).start()

    def stop(self) -> None:
        """Watch no more."""
        self._stopped.set()

    def _watch(self) -> None:
        tick = min(self.limit / 20, 10.0)
        seen, idle, last = self.place, 0.0, time.monotonic()
        while not self._stopped.wait(tick):
            # Should a thread keep Python's lock, this one never wakes; faulthandler's writes the stacks without it.
            faulthandler.dump_traceback_later(2 * self.limit)
            now = time.monotonic()
            idle += min(now - last, 2 * tick)  # who was suspended with all its processes, and goes on, did not hang
            last = now
            if self.place is not seen:
                seen, idle = self.place, 0.0
            elif idle >= self.limit:
                self._stalled(seen)
                idle = 0.0
        faulthandler.cancel_dump_traceback_later()

    def _stalled(self, place: Place) -> None:
        """Leave all that helps, hear from the others, and end the rank, unless it goes on meanwhile."""
        print(f"watchdog: rank {self.world.rank} hangs at: {place.phase}", file=sys.stderr, flush=True)
        faulthandler.dump_traceback(all_threads=True)
        path = self.logs / f"rank-{self.world.rank}.stalled.json"
        with suppress(OSError):  # a full drive, say
            part = path.with_suffix(".part")
            part.write_text(json.dumps([place.count, place.phase]), encoding="utf-8")
            part.replace(path)
        if self.nccl:
            dump = threading.Thread(target=_dump_nccl, args=(self.logs, self.world.rank), daemon=True)
            dump.start()
            dump.join(ANSWER)
        deadline = time.monotonic() + min(self.limit, ANSWER)
        answers = {self.world.rank: place}
        while len(answers) < self.world.size and time.monotonic() < deadline:
            if self._stopped.wait(0.05) or self.place is not place:
                path.unlink(missing_ok=True)
                return
            answers |= _answers(self.logs)
        message = cause(answers, self.world.size, self.limit / 60)
        stack = "".join(traceback.format_stack(sys._current_frames()[threading.main_thread().ident or 0]))
        text = f"Main thread of rank {self.world.rank}:\n{stack}{message}\n"
        self.end(Failure(self.world.rank, time.time(), user=False, message=message, traceback=text))


def cause(answers: Mapping[int, Place], ranks: int, minutes: float) -> str:
    """One line that names the ranks to look at, and where the others are."""
    silent = [rank for rank in range(ranks) if rank not in answers]
    least = min(place.count for place in answers.values())
    behind = [] if silent else [rank for rank, place in answers.items() if place.count == least]
    parts = [f"rank {rank} does not answer (stopped, or its host is gone)" for rank in silent]
    together = len(behind) == ranks
    parts += [f"rank {rank} {'is' if together else 'is behind'} at: {answers[rank].phase}" for rank in sorted(behind)]
    rest = [rank for rank in sorted(answers) if rank not in behind]
    parts += [f"rank {rank} waits at: {answers[rank].phase}" for rank in rest[:4]]
    parts += ["..."] if len(rest) > 4 else []
    return f"no step or batch for {minutes:.3g} min (--watchdog): {'; '.join(parts)}"


def _answers(logs: Path) -> dict[int, Place]:
    """Where the ranks that hang say they are."""
    paths = logs.glob("rank-*.stalled.json")
    return {int(path.name.split(".")[0][5:]): Place(*json.loads(path.read_text(encoding="utf-8"))) for path in paths}


def _dump_nccl(logs: Path, rank: int) -> None:
    from torch._C._distributed_c10d import _dump_nccl_trace  # type: ignore[attr-defined]  # its documentation names it

    (logs / f"nccl_trace_rank_{rank}").write_bytes(_dump_nccl_trace())
