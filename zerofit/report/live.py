"""How a run is doing, or a job's newest stage, read from its directory while others write it."""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from zerofit.config.errors import UserError
from zerofit.plan.files import RUN_FILE, read_spec
from zerofit.plan.job import is_job, read_job
from zerofit.plan.spec import RunSpec

Status = Literal["running", "finished", "interrupted", "failed", "gone"]
RECENT = 20
"""Lines whose mean speed tells the time left."""


class Tail:
    """metrics.jsonl as far as it has been written; read on where it ended, and anew where a resumed run replaced it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.written: float | None = None
        """When the newest line was written, in seconds since the epoch."""
        self._clear(None)

    def poll(self) -> None:
        """Read what is new. A line that is being written is left for the next time."""
        try:
            with self.path.open("rb") as file:
                stat = os.fstat(file.fileno())
                if stat.st_ino != self._inode or stat.st_size < self._read:
                    self._clear(stat.st_ino)
                self.written = stat.st_mtime
                file.seek(self._read)
                whole, _, _ = file.read().rpartition(b"\n")
        except OSError:
            self._clear(None)
            return
        if whole:
            self._read += len(whole) + 1
            for line in whole.splitlines():
                with suppress(ValueError):
                    self._add(json.loads(line))

    def _clear(self, inode: int | None) -> None:
        self._inode, self._read, self.written = inode, 0, None
        self.losses: list[float] = []
        self.last: dict[str, Any] = {}
        """The newest line of an optimizer step."""
        self.validation: dict[str, Any] = {}
        """The newest line of a validation."""
        self.recent: deque[float] = deque(maxlen=RECENT)
        """samples_s of the newest lines."""

    def _add(self, line: dict[str, Any]) -> None:
        if any(name.startswith("val_") for name in line):
            self.validation = line
        if "loss" in line:
            self.last = line
            self.losses.append(line["loss"])
            if line.get("samples_s"):
                self.recent.append(line["samples_s"])


@dataclass
class Watched:
    """A run, read again and again."""

    directory: Path
    """The run's."""
    place: str = ""
    """`stage 2 of 3`; of a run that is no stage nothing."""
    last: bool = True
    """Whether nothing comes after it."""
    tail: Tail = field(init=False)

    def __post_init__(self) -> None:
        self.tail = Tail(self.directory / "metrics.jsonl")

    def poll(self) -> State:
        """How it is doing now. Raises UserError where run.json cannot be read."""
        spec = read_spec(self.directory)
        status, why = status_of(self.directory)
        self.tail.poll()
        return State(spec, self.place, status, why, self.last, self.tail)


@dataclass(frozen=True)
class State:
    """How a run is doing."""

    spec: RunSpec
    place: str
    status: Status
    why: str
    """What is to be said of the status: an error, say."""
    last: bool
    tail: Tail

    @property
    def over(self) -> bool:
        """Whether nothing more will come, unless somebody asks for it."""
        return self.status == "finished" and self.last

    @property
    def step(self) -> int:
        """Optimizer steps that are done, as far as they were logged."""
        return int(self.tail.last.get("step", 0))

    @property
    def left_s(self) -> float | None:
        """Seconds until the last step at the newest lines' speed; null where none is known, or nobody trains."""
        if self.status != "running" or not self.tail.recent:
            return None
        batches = self.spec.batches
        mean = sum(1 / rate for rate in self.tail.recent) / len(self.tail.recent)
        return (batches.total_steps - self.step) * batches.global_batch * mean

    @property
    def age_s(self) -> float | None:
        """Seconds since the newest line was written."""
        return None if self.tail.written is None else max(0.0, time.time() - self.tail.written)


def watched(directory: Path) -> Watched:
    """The run in `directory`, or the newest stage of the job in it. Raises UserError where there is none."""
    directory = directory.expanduser().absolute()
    if not is_job(directory):
        read_spec(directory)
        return Watched(directory)
    runs = read_job(directory).runs(directory)
    begun = [number for number, run in enumerate(runs) if (run / RUN_FILE).exists()]
    if not begun:
        raise UserError(f"{directory} is a job of which no stage has begun")
    number = begun[-1]
    return Watched(runs[number], f"stage {number + 1} of {len(runs)}", number + 1 == len(runs))


def status_of(directory: Path) -> tuple[Status, str]:
    """Whether a run trains, or how it ended, and what is to be said of that."""
    try:
        result = json.loads((directory / "result.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        result = {}
    again = f"zerofit train --resume {os.path.relpath(directory)}"
    if result.get("exit") == "finished":
        return "finished", ""
    if result.get("exit") == "interrupted":
        return "interrupted", f"go on with: {again}"
    if result.get("exit") == "failed":
        return "failed", f"rank {result.get('rank')}: {result.get('error')}; logs: {os.path.relpath(directory)}/logs"
    if held(directory) is False:
        return "gone", f"no process trains it any more, and none said why; go on with: {again}"
    return "running", ""


def held(directory: Path) -> bool | None:
    """Whether processes train in a directory: they hold a lock on it. Null where the file system has no locks."""
    try:
        handle = os.open(directory, os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)  # let go at once; who wants it now waits a moment
    except BlockingIOError:
        return True
    except OSError:
        return None
    finally:
        os.close(handle)
    return False


def sparkline(values: list[float], width: int = 40) -> str:
    """Values as a line of blocks, each the mean of its share of them; what is not finite, or nearly so, is left out."""
    values = [value for value in values if abs(value) < 1e100]
    if not values:
        return ""
    width = min(width, len(values))
    edges = [index * len(values) // width for index in range(width + 1)]
    means = [sum(values[low:high]) / (high - low) for low, high in zip(edges, edges[1:], strict=False)]
    least, most = min(means), max(means)
    blocks = "▁▂▃▄▅▆▇█"
    span = most - least
    return "".join(blocks[round((mean - least) / span * 7) if span > 0 else 0] for mean in means)
