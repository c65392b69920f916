"""How an evaluation is doing, by the parts that all ranks have written so far. Rank 0 shows it."""

from __future__ import annotations

from zerofit.evaluate.parts import Parts
from zerofit.measure.answers_progress import AnswersProgress


class Watching:
    """Of one rank; where it is not `shown`, it does nothing."""

    def __init__(self, parts: Parts, samples: int, *, shown: bool) -> None:
        self.parts = parts
        self._seen: set[int] = set()
        self._correct = self._judged = 0
        self._progress: AnswersProgress | None = None
        if shown:
            self._count()
            self._progress = AnswersProgress(sum(map(len, parts.problems)) * samples, self._judged)

    def made(self, completions: int) -> None:
        """Of the part that this rank is at so many are there."""
        if self._progress is not None:
            self._count()
            self._progress.update(self._judged + completions, self._correct, self._judged)

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
                self._correct += sum(row.correct for row in rows)
