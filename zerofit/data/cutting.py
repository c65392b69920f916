"""From rows of text to records of samples: what each task makes of a row."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
from transformers import PreTrainedTokenizerBase

from zerofit.data.chat import Chat
from zerofit.data.samples import PROMPTS, SAMPLES
from zerofit.data.text_rows import TextRow

Why = Literal["untaught", "long", "empty"]


@dataclass(frozen=True)
class Cut:
    """What came of a row."""

    records: list[dict[str, Any]]
    """Rows of the split's file; none where the row is left out."""
    tokens: int = 0
    """Tokens of the row."""
    why: Why | None = None
    """Why it is left out: no assistant turn, too long, nothing to learn."""


class Cutter(Protocol):
    """Cuts rows."""

    @property
    def schema(self) -> Any:
        """Of the file."""

    def __call__(self, rows: Sequence[TextRow]) -> list[Cut]:
        """What comes of each row. Raises UserError."""


@dataclass(frozen=True)
class Dialogues:
    """The task sft on rows."""

    chat: Chat
    most: int
    schema: Any = field(default=SAMPLES)

    def __call__(self, rows: Sequence[TextRow]) -> list[Cut]:
        """A sample a row; rows that are too long, or teach nothing, are left out."""
        taught = [row for row in rows if row.example.taught]
        encoded = iter(self.chat.encode([row.example for row in taught], [row.where for row in taught]))
        return [self._cut(row, encoded) for row in rows]

    def _cut(self, row: TextRow, encoded: Any) -> Cut:
        if not row.example.taught:
            return Cut([], why="untaught")
        one = next(encoded)
        length = len(one.tokens)
        if length > self.most:
            return Cut([], length, "long")
        if not one.learnt.any():
            return Cut([], length, "empty")
        return Cut([{"tokens": one.tokens, "learnt": one.learnt, "lengths": (length,)}], length)


@dataclass(frozen=True)
class Documents:
    """The task sft on documents: all of it is learnt, and the end of each."""

    tokenizer: PreTrainedTokenizerBase
    most: int
    schema: Any = field(default=SAMPLES)

    def __call__(self, rows: Sequence[TextRow]) -> list[Cut]:
        """Samples of up to `most` tokens; a piece of one token teaches nothing."""
        texts = [row.fields["text"] for row in rows]
        found = self.tokenizer(texts, return_attention_mask=False, verbose=False)["input_ids"]
        return [self._cut(tokens) for tokens in found]

    def _cut(self, tokens: list[int]) -> Cut:
        end = int(self.tokenizer.eos_token_id)
        whole = np.asarray(tokens if tokens[-1:] == [end] else [*tokens, end], dtype=np.int32)
        pieces = [whole[start : start + self.most] for start in range(0, len(whole), self.most)]
        records = [
            {"tokens": piece, "learnt": np.arange(len(piece)) > 0, "lengths": (len(piece),)}
            for piece in pieces
            if len(piece) > 1
        ]
        return Cut(records, len(whole), None if records else "empty")


@dataclass(frozen=True)
class Questions:
    """The task grpo."""

    chat: Chat
    most: int
    schema: Any = field(default=PROMPTS)

    def __call__(self, rows: Sequence[TextRow]) -> list[Cut]:
        """A prompt a row; one that is too long is left out."""
        asked = [row for row in rows if any(message.role == "user" for message in row.example.prompt)]
        prompts = iter(self.chat.prompts([row.example for row in asked], [row.where for row in asked]))
        known = {row.where for row in asked}
        return [self._cut(row, next(prompts)) if row.where in known else Cut([], why="empty") for row in rows]

    def _cut(self, row: TextRow, tokens: Any) -> Cut:
        if len(tokens) > self.most:
            return Cut([], len(tokens), "long")
        turns = [message._asdict() for message in row.example.prompt]
        told = {**row.fields, "messages": turns, "answer": row.example.answer}
        told = {name: value for name, value in told.items() if name != "prompt"}
        record = {"tokens": tokens, "row": json.dumps(told, default=str), "where": row.where}
        return Cut([record], len(tokens))
