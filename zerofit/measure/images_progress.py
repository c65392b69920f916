"""Progress of a pass over images: a bar on a terminal, else a line now and then."""

from __future__ import annotations

import os
import shutil
import sys
import time
from typing import Any, TextIO

from tqdm import tqdm

from zerofit.measure.progress import PATIENCE


class ImagesProgress:
    """Images done of `total`, and how many a second. Rank 0 alone has one."""

    def __init__(self, what: str, total: int, done: int = 0, out: TextIO | None = None) -> None:
        self.what, self.total, self.done, self._first = what, total, done, done
        self.out = sys.stdout if out is None else out
        self._bar: Any = None
        self._started = self._written = time.monotonic()
        if os.environ.get("ZEROFIT_TTY") == "1" or self.out.isatty():
            self._bar = tqdm(
                total=total,
                initial=done,
                desc=what,
                unit=" images",
                file=self.out,
                mininterval=0.5,
                smoothing=0.0,
                ncols=shutil.get_terminal_size().columns - 1,
            )
        else:
            self._write()

    def add(self, images: int) -> None:
        """Show that so many more are done."""
        self.done += images
        if self._bar is not None:
            self._bar.update(images)
        elif time.monotonic() - self._written >= PATIENCE:
            self._write()

    def close(self) -> None:
        """Leave the last figures standing."""
        if self._bar is not None:
            self._bar.close()
        else:
            self._write()

    def _write(self) -> None:
        self._written = time.monotonic()
        rate = (self.done - self._first) / max(self._written - self._started, 1e-9)
        speed = f", {rate:,.{1 if rate < 100 else 0}f} images/s" if rate else ""
        print(f"{self.what}: {self.done}/{self.total} images{speed}", file=self.out, flush=True)
