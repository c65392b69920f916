"""Making samples: rows are read once, drawn for their splits, cut into tokens, and packed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zerofit.config.errors import UserError
from zerofit.config.schema import Recipe
from zerofit.data import text_rows
from zerofit.data.cutting import Cut, Cutter
from zerofit.data.packing import pack
from zerofit.data.samples import Writer, count
from zerofit.data.splits import SplitName
from zerofit.data.spool import Spool, draw
from zerofit.data.text_rows import Item
from zerofit.prepare.progress import RowsProgress
from zerofit.prepare.sources import Source

PATIENCE = 2.0
"""Seconds of work that need no bar."""
HELD_OUT, LIMITED = 1, 2  # which draw of rows: each has its own random numbers
Files = Mapping[SplitName, list[Source]]


@dataclass
class Figures:
    """What came of the rows of a split."""

    samples: int = 0
    rows: int = 0
    tokens: int = 0
    targets: int = 0
    longest: int = 0
    out: dict[str, int] = field(default_factory=lambda: {"untaught": 0, "long": 0, "empty": 0})
    """Rows that are left out, by why."""
    shortest: int | None = None
    """Tokens of the shortest row."""

    def add(self, cut: Cut) -> None:
        """A row."""
        if cut.tokens:
            self.shortest = min(cut.tokens, self.shortest or cut.tokens)
        if cut.why is not None:
            self.out[cut.why] += 1
            return
        self.rows += 1
        self.samples += len(cut.records)
        for record in cut.records:
            self.tokens += len(record["tokens"])
            self.targets += int(record["learnt"].sum()) if "learnt" in record else 0
            self.longest = max(self.longest, len(record["tokens"]))


class Making:
    """Makes the samples of a recipe in an empty directory."""

    def __init__(self, recipe: Recipe, cutter: Cutter, directory: Path) -> None:
        self.data, self.task, self.seed = recipe.text, recipe.task, recipe.train.seed
        self.cutter, self.directory = cutter, directory

    def all(self, files: Files) -> dict[str, Any]:
        """Each split's file; what they hold, by the names of TextFacts. Raises UserError."""
        spools = self._read(files)
        parts = self._parts(spools)
        with closing(self._bar("tokenise", sum(len(taken) for _, taken in parts.values()))) as bar:
            found = {split: self._split(split, *part, bar) for split, part in parts.items()}
        for one in spools.values():
            one.path.unlink()
        train = found["train"]
        return {
            "train": train.samples,
            "validation": found["validation" if "validation" in found else "test"].samples,
            "test": found["test"].samples if "test" in found else 0,
            "rows": train.rows,
            "tokens": train.tokens,
            "targets": train.targets,
            "longest": max(one.longest for one in found.values()),
            "left_out": sum(train.out.values()) + spools["train"].hopeless,
        }

    def _read(self, files: Files) -> dict[SplitName, Spool]:
        """All rows of all splits, in files."""
        splits: dict[SplitName, Iterable[Item]]
        if self.data.source == "arithmetic":
            splits = dict(text_rows.arithmetic_rows(self.data, self.seed))
        else:
            reader = text_rows.READERS[self.data.source]
            splits = {
                split: (item for one in sources for item in reader(one, self.data.system))
                for split, sources in files.items()
            }
        spools: dict[SplitName, Spool] = {}
        with closing(self._bar("read", None)) as bar:
            for split, items in splits.items():
                spools[split] = Spool(self.directory / f"{split}.rows")
                for _ in spools[split].fill(iter(items)):
                    bar.add()
                if not spools[split].rows:
                    hopeless = f": all {spools[split].hopeless:,} are blank or say nothing that could be learnt"
                    raise UserError(
                        f"data.{_field(split)}: there is no row in {self._path(split)}"
                        + (hopeless if spools[split].hopeless else "")
                    )
        return spools

    def _parts(self, spools: Mapping[SplitName, Spool]) -> dict[SplitName, tuple[Spool, NDArray[np.int64]]]:
        """The rows of each split that has a file of its own."""
        parts = {split: (one, np.arange(one.rows)) for split, one in spools.items()}
        train, taken = parts["train"]
        if self.data.validation > 0 and "validation" not in parts:
            held = draw(train.rows, max(1, round(self.data.validation * train.rows)), self.seed, HELD_OUT)
            taken = np.setdiff1d(taken, held)
            parts["validation"] = (train, held)
        if not len(taken):
            raise UserError(f"data.validation: {self.data.validation} leaves none of the {train.rows} training rows")
        if self.data.limit is not None and self.data.limit < len(taken):
            taken = taken[draw(len(taken), self.data.limit, self.seed, LIMITED)]
        parts["train"] = (train, taken)
        return parts

    def _split(self, split: SplitName, spool: Spool, taken: NDArray[np.int64], bar: RowsProgress) -> Figures:
        figures = Figures()
        path = self.directory / f"{split}.arrow"
        loose = self.directory / f"{split}.loose" if self.data.packing else path
        writer = Writer(loose, self.cutter.schema)
        for batch in spool.batches(taken):
            for cut in self.cutter(batch):
                figures.add(cut)
                for record in cut.records:
                    writer.add(record)
            bar.add(len(batch))
        writer.close()
        if not figures.samples:
            raise UserError(self._nothing(split, len(taken), figures))
        if self.data.packing:
            pack(loose, path, self.data.max_length)
            loose.unlink()
            figures.samples, figures.longest = count(path)
        return figures

    def _nothing(self, split: SplitName, rows: int, figures: Figures) -> str:
        """Why there is no sample."""
        path, out = self._path(split), figures.out
        if out["untaught"] == rows:
            return (
                f"data.{_field(split)}: no row of {path} has an assistant turn, which the task sft learns; where they "
                "have answers, the task grpo learns from those"
            )
        if out["long"]:
            what = f"{'training' if split == 'train' else split} {'prompts' if self.task == 'grpo' else 'rows'}"
            return (
                f"data.max_length: none of the {rows:,} {what} of {path} is short enough: the shortest has "
                f"{figures.shortest:,} tokens, and max_length is {self.data.max_length:,}"
            )
        return f"data.{_field(split)}: none of the {rows:,} rows of {path} has anything to learn"

    def _path(self, split: SplitName) -> str:
        paths = {"train": self.data.path, "validation": self.data.validation_path, "test": self.data.test_path}
        return paths[split] or self.data.path or "arithmetic"

    def _bar(self, name: str, total: int | None) -> RowsProgress:
        return RowsProgress(name=name, total=total, delay=PATIENCE)


def _field(split: SplitName) -> str:
    return {"train": "path", "validation": "validation_path", "test": "test_path"}[split]
