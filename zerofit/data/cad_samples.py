"""Samples of the task cad on a drive, memory-mapped: tokens of a caption and of a command text for each model.

<root>/<key>/train.arrow validation.arrow test.arrow     a model a row; the clouds and images of `row` lie elsewhere
             left_out.jsonl                              the models that are in none of them, and why
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from zerofit.data.cad_inputs import Sizes, Slots
from zerofit.data.samples import Mapped, open_mapped
from zerofit.data.splits import SplitName
from zerofit.plan.spec import CadFacts

BARE = b"bare"
"""In the metadata of a file: the tokens of a prompt without caption, as JSON."""
FIELDS = [
    pa.field("id", pa.string()),
    pa.field("row", pa.int64()),
    pa.field("caption", pa.large_list(pa.int32())),
    pa.field("commands", pa.large_list(pa.int32())),
]
Tokens = NDArray[np.int32]


@dataclass(frozen=True)
class Told:
    """A model in tokens."""

    id: str
    row: int
    """Its row in the table, and so its cloud and images."""
    caption: Tokens
    """A prompt with its caption."""
    commands: Tokens
    """What is learnt: the command text, and the end of sequence."""


class CadSamples(Mapped[Told]):
    """The samples of a split."""

    @property
    def bare(self) -> Tokens:
        """A prompt without caption."""
        return np.array(json.loads(self._batches[0].schema.metadata[BARE]), dtype=np.int32)

    def sizes(self, slots: Slots) -> Sizes:
        """Tokens of each."""
        captions, commands = (
            np.concatenate([batch.column(name).value_lengths().to_numpy() for batch in self._batches]).astype(np.int64)
            for name in ("caption", "commands")
        )
        return Sizes(captions, commands, len(self.bare), slots)

    def _of(self, row: dict[str, Any]) -> Told:
        caption, commands = (row[name].values.to_numpy(zero_copy_only=False) for name in ("caption", "commands"))
        return Told(row["id"].as_py(), row["row"].as_py(), caption, commands)


def schema_of(bare: list[int]) -> Any:
    """Of a file whose prompts without caption are these tokens."""
    return pa.schema(FIELDS, metadata={BARE: json.dumps(bare).encode()})


def open_cad_samples(facts: CadFacts, split: SplitName) -> CadSamples:
    """The samples of a split. Raises UserError where they are not what `facts` describe."""
    return open_mapped(CadSamples, facts, split)
