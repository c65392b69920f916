"""The rows of a split in a file of JSON lines, read from their sources once, and which of them are taken."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from zerofit.data.text_rows import Item, TextRow, row_of

BATCH = 256
"""Rows that are cut together, at most."""
BATCH_CHARACTERS = 4 * 2**20
"""Characters of theirs, about: a token in memory is larger than its text."""


@dataclass
class Spool:
    """Rows in a file."""

    path: Path
    rows: int = 0
    hopeless: int = 0
    """Rows of the source that are not in it: nothing in them could be learnt."""

    def fill(self, items: Iterator[Item]) -> Iterator[None]:
        """Write rows, with a pause after each."""
        with self.path.open("w", encoding="utf-8") as file:
            for item in items:
                if item is None:
                    self.hopeless += 1
                else:
                    file.write(item.line() + "\n")
                    self.rows += 1
                yield

    def batches(self, taken: NDArray[np.int64]) -> Iterator[list[TextRow]]:
        """The rows of these numbers, which are sorted, some at a time."""
        wanted = np.zeros(self.rows, dtype=np.bool_)
        wanted[taken] = True
        batch: list[TextRow] = []
        characters = 0
        with self.path.open(encoding="utf-8") as file:
            for number, line in enumerate(file):
                if not wanted[number]:
                    continue
                batch.append(row_of(line))
                characters += len(line)
                if len(batch) == BATCH or characters > BATCH_CHARACTERS:
                    yield batch
                    batch, characters = [], 0
        if batch:
            yield batch


def draw(rows: int, count: int, seed: int, purpose: int) -> NDArray[np.int64]:
    """`count` of the numbers below `rows`, sorted, drawn at random."""
    random = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(purpose,)))
    return np.sort(random.permutation(rows)[:count])
