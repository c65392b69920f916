"""Rows done, and how many a second: a bar on a terminal, else a line now and then."""

from __future__ import annotations

import os
import shutil
import sys
import time
from typing import Any, TextIO

from tqdm import tqdm

PATIENCE = 30.0
"""Seconds between two lines."""


class RowsProgress:
    """`total` rows, or nobody knows how many; a bar comes after `delay` seconds."""

    def __init__(
        self, out: TextIO | None = None, *, name: str = "prepare", total: int | None = None, delay: float = 0.0
    ) -> None:
        self.out = sys.stdout if out is None else out
        self.name = name
        self.done = 0
        self._started = self._written = time.monotonic()
        self._bar: Any = None
        if os.environ.get("ZEROFIT_TTY") == "1" or self.out.isatty():
            self._bar = tqdm(
                desc=name,
                total=total,
                delay=delay,
                unit=" rows",
                file=self.out,
                mininterval=0.5,
                smoothing=0.0,
                leave=False,
                ncols=shutil.get_terminal_size().columns - 1,
            )

    @property
    def rate(self) -> float:
        """Rows a second."""
        return self.done / max(time.monotonic() - self._started, 1e-9)

    def add(self, rows: int = 1) -> None:
        """So many more are done."""
        self.done += rows
        if self._bar is not None:
            self._bar.update(rows)
        elif time.monotonic() - self._written >= PATIENCE:
            self._written = time.monotonic()
            print(f"{self.name}: {self.done:,} rows, {self.rate:,.0f} rows/s", file=self.out, flush=True)

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.close()
