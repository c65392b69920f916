"""How an evaluation is doing, by the parts that all ranks have written so far. Rank 0 shows it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic

from zerofit.evaluate.parts import Parts
from zerofit.measure.answers_progress import AnswersProgress
from zerofit.measure.parquet_rows import Row


@dataclass(frozen=True)
class Shown(Generic[Row]):
    """What is shown of an evaluation."""

    unit: str
    """What its rows are."""
    per_problem: int
    """Rows of a problem."""
    figure: str
    """Name of the share of rows that are good."""
    good: Callable[[Row], bool]


class Watching(Generic[Row]):
    """Of one rank; where it is not `visible`, it does nothing."""

    def __init__(self, parts: Parts[Row], shown: Shown[Row], *, visible: bool) -> None:
        self.parts, self.shown = parts, shown
        self._seen: set[int] = set()
        self._good = self._judged = 0
        self._progress: AnswersProgress | None = None
        if visible:
            self._count()
            total = sum(map(len, parts.problems)) * shown.per_problem
            self._progress = AnswersProgress(total, self._judged, unit=shown.unit, figure=shown.figure)

    def made(self, rows: int) -> None:
        """Of the part that this rank is at so many are there."""
        if self._progress is not None:
            self._count()
            self._progress.update(self._judged + rows, self._good, self._judged)

    def look(self) -> None:
        """See what was written meanwhile."""
        self.made(0)

    def close(self) -> None:
        """Leave the last figures standing."""
        if self._progress is not None:
            self._progress.close()

    def _count(self) -> None:
        for number in self.parts.done():
            if number not in self._seen:
                self._seen.add(number)
                rows = self.parts.read(number).rows
                self._judged += len(rows)
                self._good += sum(map(self.shown.good, rows))
