"""The grammar of the command text, a character at a time: for decoding that can write nothing else.

    state = start().advance("loop\\ncircle 1")   # None where no command text begins so
    state.viable                                # the characters that can come next
    state.finished                              # whether the text is whole

A text that is not finished can always go on to be, a finished one cannot go on. States are some hundred and hashable:
what a decoder works out for one (which tokens of its vocabulary can come next) it can keep.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from zerofit.cad.automaton import Builder, Part, Table
from zerofit.cad.shape import Extent, Operation

PLANES = {
    (128, 128, 128): "top",
    (255, 128, 255): "bottom",
    (192, 64, 192): "front",
    (192, 192, 192): "back",
    (192, 128, 192): "right",
    (192, 255, 192): "left",
}
"""Angles of planes that have a name: the side they face, from where their x axis points to the right."""
OPERATIONS = {
    Operation.NEW_BODY: "new",
    Operation.JOIN: "join",
    Operation.CUT: "cut",
    Operation.INTERSECT: "intersect",
}
EXTENTS = {Extent.SYMMETRIC: "both", Extent.TWO_SIDES: "two"}
"""Of one side nothing is said."""


@dataclass(frozen=True)
class State:
    """After some text."""

    number: int

    def advance(self, characters: str) -> State | None:
        """After these too; None where no command text has them here."""
        ways, at = _table().ways, self.number
        for character in characters:
            if character not in ways[at]:
                return None
            at = ways[at][character]
        return State(at)

    @property
    def viable(self) -> frozenset[str]:
        """The characters that can come next: none once finished."""
        return frozenset(_table().ways[self.number])

    @property
    def finished(self) -> bool:
        """Whether the text is whole."""
        return self.number in _table().final


def start() -> State:
    """Before any text."""
    return State(0)


def allowed(prefix: str) -> State | None:
    """After that text from the start; None where no command text begins so."""
    return start().advance(prefix)


def inside(text: str) -> bool:
    """Whether some command text has that anywhere in it: what no state can go on with is not."""
    states = _everywhere()
    for character in text:
        states = _after(states, character)
    return bool(states)


@cache
def _everywhere() -> frozenset[int]:
    return frozenset(range(len(_table().ways)))


@cache
def _after(states: frozenset[int], character: str) -> frozenset[int]:
    """Where any of these states gets by a character."""
    ways = _table().ways
    return frozenset(ways[state][character] for state in states if character in ways[state])


@cache
def _table() -> Table:
    language = _Language()
    return language.table(language.sequence())


class _Language(Builder):
    def sequence(self) -> Part:
        group = self.chain(self.repeated(self.loop()), self.extrude())
        return self.chain(self.repeated(group), self.text("end"))

    def loop(self) -> Part:
        line = self.chain(self.text("line"), self.numbers(2))
        arc = self.chain(self.text("arc"), self.numbers(2), self.text(" "), self.maybe(self.text("-")), self.number())
        edges = self.repeated(self.chain(self.either(line, arc), self.text("\n")))
        circle = self.chain(self.text("circle"), self.numbers(3), self.text("\n"))
        return self.chain(self.text("loop\n"), self.either(circle, edges))

    def extrude(self) -> Part:
        return self.chain(
            self.text("extrude"),
            self.either(self.numbers(3), *(self.text(f" {name}") for name in PLANES.values())),
            self.text(" at"),
            self.numbers(3),
            self.text(" size"),
            self.numbers(1),
            self.either(*(self.text(f" {name}") for name in OPERATIONS.values())),
            self.maybe(self.either(*(self.text(f" {name}") for name in EXTENTS.values()))),
            self.numbers(1),
            self.maybe(self.numbers(1)),
            self.text("\n"),
        )

    def numbers(self, count: int) -> Part:
        """That many, with a space before each."""
        return self.chain(*(self.chain(self.text(" "), self.number()) for _ in range(count)))

    def number(self) -> Part:
        """0 to 255, with no zeros in front."""
        digit = "0123456789"
        return self.either(
            self.one_of(digit),
            self.chain(self.one_of(digit[1:]), self.one_of(digit)),
            self.chain(self.one_of("1"), self.one_of(digit), self.one_of(digit)),
            self.chain(self.one_of("2"), self.one_of("01234"), self.one_of(digit)),
            self.chain(self.one_of("2"), self.one_of("5"), self.one_of("012345")),
        )
