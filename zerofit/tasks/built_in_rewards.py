"""The rewards that are built in. Each is its settings, and called with a completion and the row of its problem.

A row is a mapping of the data set's columns; `completion_tokens`, the number of tokens that were generated, is added to
it by whoever calls.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Mapping
from numbers import Real
from typing import Any, Literal

from pydantic import model_validator

from zerofit.config.errors import UserError
from zerofit.config.ranges import Count
from zerofit.config.section import Section
from zerofit.measure.verifier import Verdict, shared_verifier
from zerofit.tasks.completion import answers, inside

TOKENS = "completion_tokens"
Row = Mapping[str, Any]


class BuiltIn(Section):
    """A reward's settings."""

    @abstractmethod
    def __call__(self, completion: str, row: Row) -> float:
        """What the completion is worth. Raises UserError where the row has not what that needs."""

    def check(self, row: Row) -> None:
        """Raise UserError where a data set's row has not what this needs of it: before training rather than in it."""


class MathCorrect(BuiltIn):
    """1.0 where the completion's final answer equals the row's, else 0.0."""

    answer: str = "answer"
    """The column with the right answer: a number, LaTeX, or a text that ends in `#### 72` or has a `\\boxed{72}`."""

    def __call__(self, completion: str, row: Row) -> float:
        """1.0 or 0.0."""
        verdict = self.judge(completion, row)
        return 1.0 if verdict is not None and verdict.correct else 0.0

    def judge(self, completion: str, row: Row) -> Verdict | None:
        """Whether the answer is right, and what it is; null where finding out was given up, which counts as wrong."""
        gold = gold_text(_column(row, self.answer), self.answer)
        verdict = shared_verifier().judge(gold, answers(completion))
        if verdict is None or not verdict.readable:
            self.check(row)  # it may be the row's fault
        return verdict

    def check(self, row: Row) -> None:
        """Raise UserError where the right answer cannot be read."""
        verdict = shared_verifier().judge(gold_text(_column(row, self.answer), self.answer), ())
        if verdict is None or not verdict.readable:
            fault = "takes too long to read" if verdict is None else "cannot be read"
            raise UserError(f"column {self.answer}: {row[self.answer]!r} {fault}; give a number, LaTeX, or `#### 72`")


class ThinkFormat(BuiltIn):
    """1.0 for `<think>a thought</think>` and then an answer, each once and none of them empty, else 0.0."""

    answer_tags: Literal["optional", "required"] = "optional"
    """Whether the answer must stand in `<answer>` tags, with nothing but space around them."""
    opened_by: Literal["completion", "prompt"] = "completion"
    """Who writes `<think>`: the chat templates of some reasoning models put it at the end of the prompt."""

    def __call__(self, completion: str, row: Row) -> float:
        """1.0 or 0.0."""
        text = "<think>" + completion if self.opened_by == "prompt" else completion
        text = text.strip()
        if not text.startswith("<think>") or not inside(text, "think"):
            return 0.0
        answer = text.partition("</think>")[2].strip()
        if self.answer_tags == "required" or _ANSWER_TAG.search(answer):
            whole = answer.startswith("<answer>") and answer.endswith("</answer>")
            return 1.0 if whole and inside(answer, "answer") else 0.0
        return 1.0 if answer else 0.0


class Length(BuiltIn):
    """0.0 up to `limit` - `buffer` tokens, from there down to -1.0 at `limit`, and -1.0 above.

    The soft over-long punishment of DAPO (Yu et al. 2025, arXiv:2503.14476, equation 13).
    """

    limit: Count
    """L_max: the most tokens of a completion."""
    buffer: Count
    """L_cache: over how many tokens below `limit` the reward falls."""

    @model_validator(mode="after")
    def _fits(self) -> Length:
        if self.buffer > self.limit:
            raise ValueError(f"buffer is to be at most limit, {self.limit}, not {self.buffer}")
        return self

    def __call__(self, completion: str, row: Row) -> float:
        """From -1.0 to 0.0."""
        left = self.limit - self.buffer - _column(row, TOKENS)
        return max(min(left / self.buffer, 0.0), -1.0)


_ANSWER_TAG = re.compile("</?answer>")


def gold_text(value: Any, column: str) -> str:
    """The right answer of a row as LaTeX in a box, which Math-Verify reads most surely. Raises UserError."""
    if isinstance(value, bool) or not isinstance(value, str | Real):
        raise UserError(f"column {column}: is to be a number or a text, not {value!r}")
    text = str(value)
    if "\\boxed" in text:
        return text
    text = text.rpartition("####")[2].strip()
    if text.startswith("$") and text.endswith("$"):
        text = text.strip("$")
    return f"\\boxed{{{text}}}"


def _column(row: Row, name: str) -> Any:
    if name not in row:
        raise UserError(f"the row has no column {name}; it has {', '.join(map(str, row)) or 'none'}")
    return row[name]
