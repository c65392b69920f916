"""Progress on rank 0: a bar on a terminal, else a line now and then."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any, TextIO

from tqdm import tqdm

QUIET = 2.0
"""Seconds between two lines, at least."""
PATIENCE = 30.0
"""Seconds without a line, at most, while there are updates; sooner where another 5 % is done."""


class Progress:
    """Optimizer steps done, with loss, samples/s, memory and the time left, in 80 columns.

    A bar needs a terminal, or ZEROFIT_TTY=1: the launcher says so where a terminal shows what we write to a log.
    """

    def __init__(self, total: int, out: TextIO | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self.total, self.clock = total, clock
        self.out = sys.stdout if out is None else out
        self.tty = os.environ.get("ZEROFIT_TTY") == "1" or self.out.isatty()
        self._bar: Any = None
        self._first = self._step = self._shown = 0
        self._started = self._written = 0.0
        self._figures = ""

    def start(self, step: int = 0) -> None:
        """Show the progress of a run that stands at `step`, at once."""
        self._first = self._step = step
        self._started = self.clock()
        if self.tty:
            self._bar = tqdm(
                total=self.total,
                initial=step,
                file=self.out,
                mininterval=0.5,  # what a terminal shows is kept in a log
                smoothing=0.0,  # the time left follows from the whole run's mean: evaluation and checkpoints count
                ncols=shutil.get_terminal_size().columns - 1,  # of the launcher's terminal: COLUMNS
                bar_format="{percentage:3.0f}%|{bar}| step {n_fmt}/{total_fmt}{postfix}, {remaining} left",
            )
        else:
            self._write()

    def update(self, step: int, loss: float, samples_s: float, memory_gib: float | None = None) -> None:
        """Show that `step` is done; samples_s is over all ranks, memory_gib this rank's (null: not known)."""
        self._step = step
        memory = "" if memory_gib is None else f", {memory_gib:.1f} GiB"
        self._figures = f"loss {loss:.4f}, {samples_s:,.{1 if samples_s < 100 else 0}f} samples/s{memory}"
        if self._bar is not None:
            self._bar.set_postfix_str(self._figures, refresh=False)
            self._bar.update(step - self._bar.n)
        elif self._due():
            self._write()

    def note(self, text: str) -> None:
        """Write a line that stays."""
        if self._bar is not None:
            self._bar.write(text, file=self.out)
        else:
            print(text, file=self.out, flush=True)

    def close(self) -> None:
        """Leave the last figures standing."""
        if self._bar is not None:
            self._bar.refresh()
            self._bar.close()
        elif self._shown != self._step:
            self._write()

    def _due(self) -> bool:
        waited = self.clock() - self._written
        done = (self._step - self._shown) >= 0.05 * self.total
        return self._step == self.total or (waited >= QUIET and done) or waited >= PATIENCE

    def _write(self) -> None:
        self._shown, self._written = self._step, self.clock()
        parts = [f"step {self._step}/{self.total}", self._figures]
        if self._step > self._first:
            left = (self.total - self._step) * (self._written - self._started) / (self._step - self._first)
            parts.append(f"{timedelta(seconds=round(left))} left")
        print(", ".join(part for part in parts if part), file=self.out, flush=True)
