"""What goes through preparation: a row as read, an example in normal form, and why a row is dropped."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, NamedTuple, TypeAlias

from zerofit.prepare import wording

Fields: TypeAlias = Mapping[str, Any]
Role = Literal["system", "user", "assistant", "tool"]

Reason = Literal[
    "malformed",
    "unknown form",
    "invalid",
    "empty",
    "no target",
    "duplicate",
    "near duplicate",
    "overlap",
    "all masked",
    "too long",
]

WORDS: dict[Reason, str] = {
    "malformed": "cannot be read",
    "unknown form": "of no known form",
    "invalid": "of a known form, but with values that are none of it",
    "empty": "a turn that says nothing",
    "no target": "neither an assistant turn nor an answer",
    "duplicate": "the same as an earlier row",
    "near duplicate": "nearly the same as an earlier row",
    "overlap": "shared with the evaluation data",
    "all masked": "nothing to learn within the context",
    "too long": "longer than the context",
}
"""Each reason in words, in the order of the checks."""

BAD: frozenset[Reason] = frozenset({"malformed", "unknown form", "invalid", "empty", "no target"})
"""Of the row itself: what `--on-bad-row fail` stops at."""


@dataclass(frozen=True)
class Row:
    """A row as read."""

    source: str
    """`file:line`; in parquet, CSV arrays and the like `file:row`, from 1."""
    value: Any
    """Its JSON value."""


def shown(text: str) -> str:
    """Text of somebody's file on one line, without what a terminal would obey or a file could not hold."""
    return "".join(one if one.isprintable() else ascii(one)[1:-1] for one in text)


@dataclass(frozen=True)
class Broken:
    """What could not be read."""

    source: str
    why: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "why", shown(self.why))


class Unusable(Exception):
    """Raised by what looks into a row: it is dropped, and this is why."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason: Reason = reason
        self.detail = shown(detail)


class Message(NamedTuple):
    """One turn."""

    role: Role
    content: str


@dataclass(frozen=True)
class Example:
    """A row in normal form."""

    messages: tuple[Message, ...]
    answer: str | None = None
    """What the end of a solution is checked against."""
    tools: str | None = None
    """The tools that may be called, as JSON."""

    @property
    def prompt(self) -> tuple[Message, ...]:
        """The turns before the last of the assistant; all of them where it has none."""
        for i in reversed(range(len(self.messages))):
            if self.messages[i].role == "assistant":
                return self.messages[:i]
        return self.messages

    @property
    def opening(self) -> tuple[Message, ...]:
        """The turns before the first of the assistant: nothing in them is learnt from."""
        for i, message in enumerate(self.messages):
            if message.role == "assistant":
                return self.messages[:i]
        return self.messages

    @property
    def taught(self) -> bool:
        """Whether there is an assistant turn."""
        return any(message.role == "assistant" for message in self.messages)

    @property
    def question(self) -> str:
        """What the user says before the last assistant turn."""
        return "\n".join(message.content for message in self.prompt if message.role == "user")

    @cached_property
    def text(self) -> str:
        """All that is said, normalised; system prompts, which many rows share, left out."""
        return wording.normalise("\n".join(message.content for message in self.messages if message.role != "system"))

    @cached_property
    def words(self) -> list[str]:
        """Of the text."""
        return wording.words(self.text)
