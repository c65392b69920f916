"""Which rows a recipe uses, in which split, and their tokens."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from zerofit.config.cad import Cad, Inputs
from zerofit.config.errors import UserError
from zerofit.config.schema import Recipe
from zerofit.data.cad_inputs import Sizes, Slots
from zerofit.data.cad_rows import Bad
from zerofit.data.cad_samples import CadSamples, schema_of
from zerofit.data.cad_table import PATIENCE, Table
from zerofit.data.cad_tokens import CadTokens
from zerofit.data.making import HELD_OUT, LIMITED
from zerofit.data.samples import Writer
from zerofit.data.splits import SplitName
from zerofit.data.spool import BATCH, draw
from zerofit.prepare.progress import RowsProgress

Rows = NDArray[np.int64]
LEFT_OUT = "left_out.jsonl"


@dataclass(frozen=True)
class Usable:
    """Rows that can be used."""

    rows: Rows
    """Their numbers."""
    bad: tuple[Bad, ...]
    """All models that cannot."""

    @classmethod
    def of(cls, table: Table, reasons: Mapping[int, str], needs_caption: bool) -> Usable:
        """Those for which no reason is given, and which have a caption where rows are to see one."""
        why = dict(reasons)
        if needs_caption:
            without = (number for number, caption in enumerate(table.rows.column("caption")) if caption is None)
            why |= {number: "has no caption" for number in without if number not in why}
        rows = np.array([number for number in range(len(table.rows)) if number not in why], dtype=np.int64)
        return cls(rows, (*table.bad, *(Bad(table.rows[number].id, why[number]) for number in sorted(why))))


def validation_from(data: Cad, table: Table) -> Literal["split", "train", "test"]:
    """Where validation samples come from. Raises UserError where there is nothing to train or to validate on."""
    there = set(table.rows.column("split"))
    if there and not there & {None, "train"}:
        raise UserError(f"data.path: no model of {data.path} is in the split train; it cannot be trained on")
    if "validation" in there:
        return "split"
    if data.validation > 0:
        return "train"
    if "test" in there:
        return "test"
    raise UserError(
        f"data.validation: {data.path} has neither a validation nor a test split; set the fraction of the models to "
        "hold out, for example data.validation=0.05"
    )


class Cutting:
    """Cuts the rows of a table into samples, in an empty directory."""

    def __init__(self, recipe: Recipe, tokenizer: PreTrainedTokenizerBase, slots: Slots, directory: Path) -> None:
        self.data, self.seed = recipe.cad, recipe.train.seed
        self.tokens, self.slots, self.directory = CadTokens(tokenizer), slots, directory

    def all(self, table: Table, usable: Usable) -> dict[str, Any]:
        """A file for each split; what they hold, by the names of CadFacts. Raises UserError."""
        parts = self._parts(table, usable.rows)
        with closing(RowsProgress(name="tokenise", total=sum(map(len, parts.values())), delay=PATIENCE)) as bar:
            long = {split: self._split(split, rows, table, bar) for split, rows in parts.items()}
        self._note([*usable.bad, *(one for bad in long.values() for one in bad)])
        found = {split: CadSamples(self.directory / f"{split}.arrow") for split in parts}
        sizes = {split: samples.sizes(self.slots) for split, samples in found.items()}
        train = sizes["train"]
        return {
            "train": len(found["train"]),
            "validation": len(found["validation" if "validation" in found else "test"]),
            "test": len(found["test"]) if "test" in found else 0,
            "rows": len(found["train"]),
            "tokens": round(sum(one.share * self._tokens(train, one.inputs) for one in self.data.shares)),
            "targets": int(train.commands.sum()),
            "longest": max(self._longest(one) for one in sizes.values()),
            "left_out": len(long["train"]) + len(usable.bad),
        }

    def _longest(self, sizes: Sizes) -> int:
        most = self.data.views_at_once[1]
        return max(int(sizes.of(one.inputs, most).max()) for one in self.data.shares)

    def _tokens(self, sizes: Sizes, inputs: Inputs) -> float:
        """Of all samples that see these inputs, on average over how many images they may have."""
        least, most = self.data.views_at_once
        return float(np.mean([sizes.of(inputs, images).sum() for images in range(least, most + 1)]))

    def _parts(self, table: Table, rows: Rows) -> dict[SplitName, Rows]:
        """The rows of each split that is not another's."""
        parts: dict[SplitName, list[int]] = {"train": []}
        split_of = table.rows.column("split")
        for number in rows.tolist():
            parts.setdefault(split_of[number] or "train", []).append(number)
        taken = {split: np.array(numbers, dtype=np.int64) for split, numbers in parts.items()}
        train = taken["train"]
        if self.data.validation > 0 and "validation" not in taken:
            held = draw(len(train), max(1, round(self.data.validation * len(train))), self.seed, HELD_OUT)
            taken["validation"] = train[held]
            train = np.delete(train, held)
        if not len(train):
            raise UserError(f"data: of {len(table.rows):,} models none is left to train on")
        if self.data.limit is not None and self.data.limit < len(train):
            train = train[draw(len(train), self.data.limit, self.seed, LIMITED)]
        return {**taken, "train": train}

    def _split(self, split: SplitName, rows: Rows, table: Table, bar: RowsProgress) -> list[Bad]:
        """Write its file; what is too long. Raises UserError where all is."""
        long: list[Bad] = []
        shortest = 0
        writer = Writer(self.directory / f"{split}.arrow", schema_of(self.tokens.bare))
        for start in range(0, len(rows), BATCH):
            for record in self._records(rows[start : start + BATCH], table):
                length = self._length(record)
                if length <= self.data.max_length:
                    writer.add(record)
                else:
                    shortest = min(shortest or length, length)
                    long.append(Bad(record["id"], f"has {length:,} tokens, and max_length is {self.data.max_length:,}"))
                bar.add()
        writer.close()
        if not writer.rows:
            raise UserError(
                f"data.max_length: none of the {len(rows):,} models of the split {split} is short enough: the shortest "
                f"has {shortest:,} tokens, and max_length is {self.data.max_length:,}"
            )
        return long

    def _records(self, rows: Rows, table: Table) -> list[dict[str, Any]]:
        models = [table.rows[number] for number in rows.tolist()]
        prompts = self.tokens.prompts([model.caption or "" for model in models])
        commands = self.tokens.commands([model.commands for model in models])
        return [
            {"id": model.id, "row": row, "caption": prompt, "commands": command}
            for model, row, prompt, command in zip(models, rows.tolist(), prompts, commands, strict=True)
        ]

    def _length(self, record: dict[str, Any]) -> int:
        """Tokens of a row with all that it may see."""
        most = self.data.views_at_once[1]
        return max(
            len(record["caption"] if one.inputs.text else self.tokens.bare) + self.slots.of(one.inputs, most)
            for one in self.data.shares
        ) + len(record["commands"])

    def _note(self, bad: list[Bad]) -> None:
        lines = [json.dumps({"id": one.id, "reason": one.reason}) + "\n" for one in bad]
        (self.directory / LEFT_OUT).write_text("".join(lines), encoding="utf-8")
