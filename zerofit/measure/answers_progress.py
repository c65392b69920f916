"""Progress of an evaluation by completions: a bar on a terminal, else a line now and then; with a figure so far."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any, TextIO

from tqdm import tqdm

from zerofit.measure.progress import PATIENCE


class AnswersProgress:
    """`unit` done of `total`, of all ranks, and the share of them that is good, as `figure`. Rank 0 alone has one."""

    def __init__(
        self,
        total: int,
        done: int = 0,
        out: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
        *,
        unit: str = "completions",
        figure: str = "pass@1",
    ) -> None:
        self.unit, self.figure = unit, figure
        self.total, self.done, self._first, self.clock = total, done, done, clock
        self.out = sys.stdout if out is None else out
        self._figures = ""
        self._bar: Any = None
        self._started = self._written = clock()
        if os.environ.get("ZEROFIT_TTY") == "1" or self.out.isatty():
            self._bar = tqdm(
                total=total,
                initial=done,
                file=self.out,
                mininterval=0.5,
                smoothing=0.0,  # the time left follows from the mean of all: completions end in clusters
                ncols=shutil.get_terminal_size().columns - 1,
                bar_format="{percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} " + unit + "{postfix}, {remaining} left",
            )
        else:
            self._write()

    def update(self, done: int, correct: int = 0, judged: int = 0) -> None:
        """Show that so many are done; of these so many are judged, and correct."""
        self.done = max(done, self.done)
        if judged:
            self._figures = f"{self.figure} {100 * correct / judged:.1f} %"
        if self._bar is not None:
            self._bar.set_postfix_str(self._figures, refresh=False)
            self._bar.update(self.done - self._bar.n)
        elif self.clock() - self._written >= PATIENCE:
            self._write()

    def close(self) -> None:
        """Leave the last figures standing."""
        if self._bar is not None:
            self._bar.refresh()
            self._bar.close()
        else:
            self._write()

    def _write(self) -> None:
        self._written = self.clock()
        parts = [f"{self.done:,}/{self.total:,} {self.unit}", self._figures]
        made = self.done - self._first
        if made and self.done < self.total:
            left = (self.total - self.done) * (self._written - self._started) / made
            parts.append(f"{timedelta(seconds=round(left))} left")
        print(", ".join(part for part in parts if part), file=self.out, flush=True)
