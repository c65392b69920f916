"""What a family of parts is: how its parameters are drawn, and what is known of a part that has them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from typing import ClassVar, Self

from zerofit.cad.sequence import Sequence

Pick = Callable[[range], int]
"""Takes one of some numbers."""


def grid(first: int, last: int, step: int = 8) -> range:
    """From `first` to `last`, which is one of them where steps reach it."""
    assert first <= last, (first, last)
    return range(first, last + 1, step)


@dataclass(frozen=True)
class Form(ABC):
    """A part of one family. Its fields are its parameters: lengths in units of `drawing.UNITS`."""

    kind: ClassVar[str]
    """The family's name."""
    description: ClassVar[str]
    """What its parts look like."""

    @classmethod
    @abstractmethod
    def draw(cls, pick: Pick) -> Self:
        """A valid part: each range that is picked from may depend on what was picked before."""

    @property
    @abstractmethod
    def sequence(self) -> Sequence:
        """How it is constructed."""

    @property
    @abstractmethod
    def volume(self) -> float:
        """In cubes of the unit of its parameters."""

    @property
    @abstractmethod
    def captions(self) -> tuple[str, ...]:
        """It in several wordings, each with all its parameters, and a space before each number."""

    @property
    def parameters(self) -> tuple[int, ...]:
        """Its fields, in their order."""
        return tuple(vars(self).values())

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """Of its parameters."""
        return tuple(field.name for field in fields(cls))


def every(form: type[Form]) -> Iterator[Form]:
    """All parts of a family: `draw` with every number of every range."""
    pending: list[tuple[int, ...]] = [()]
    while pending:
        chosen = pending.pop()
        taken: list[int] = []

        def pick(numbers: range, chosen: tuple[int, ...] = chosen, taken: list[int] = taken) -> int:
            place = len(taken)
            if place >= len(chosen):  # a branch not seen yet: the first number now, the others later
                pending.extend((*taken, other) for other in numbers[1:])
            taken.append(chosen[place] if place < len(chosen) else numbers[0])
            return taken[-1]

        yield form.draw(pick)
