"""Rows that share text with evaluation data: the question itself, or a run of 13 words of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import xxhash

from zerofit.prepare.rows import Example
from zerofit.prepare.wording import digest, normalise, runs, words

RUN = 13
"""Words of a run (Brown et al. 2020)."""
COMMON = 10
"""A run that more evaluation questions than these have is an instruction, and says nothing about any of them."""

Kind = Literal["question", "13 words"]


@dataclass(frozen=True)
class Shared:
    """What a row shares with which evaluation row."""

    kind: Kind
    source: str
    text: str
    """The words, where it is a run of them."""


class Evaluation:
    """The questions of evaluation data."""

    def __init__(self, examples: Iterable[tuple[str, Example]]) -> None:
        self._questions: dict[int, str] = {}
        self._runs: dict[int, str] = {}
        counts: Counter[int] = Counter()
        for source, example in examples:
            normal = normalise(example.question)
            if not normal:
                continue
            if self._questions.setdefault(digest(normal), source) is not source:
                continue  # the same question again, as in data that ask everything 16 times
            found = words(normal)
            for run in {_hash(run) for run in runs(found, RUN)} if len(found) >= RUN else ():
                counts[run] += 1
                self._runs.setdefault(run, source)
        for run, count in counts.items():
            if count > COMMON:
                del self._runs[run]

    def __len__(self) -> int:
        return len(self._questions)

    def shared(self, example: Example) -> Shared | None:
        """What the row shares, if anything."""
        if not self._questions:
            return None
        asked = self._questions.get(digest(normalise(example.question)))
        if asked is not None:
            return Shared("question", asked, "")
        if len(example.words) >= RUN:
            for run in runs(example.words, RUN):
                source = self._runs.get(_hash(run))
                if source is not None:
                    return Shared("13 words", source, run)
        return None


def _hash(run: str) -> int:
    return xxhash.xxh3_64_intdigest(run.encode())
