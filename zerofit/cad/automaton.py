"""Regular languages built from parts, as tables: where a text that was read so far can go on.

Parts are put together by position (Glushkov 1961): a part knows at which positions a text of it can start and end, and
the builder which position can follow which. `table` makes of that a deterministic automaton, by sets of positions.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

START = -1
"""The position before all others."""


@dataclass(frozen=True)
class Part:
    """Some texts: whether the empty one is of them, and the positions that can be their first and their last."""

    empty: bool
    first: frozenset[int]
    last: frozenset[int]


@dataclass(frozen=True)
class Table:
    """A deterministic automaton. Its states are 0 (the start), 1, 2, ...; a state has a way for each character."""

    ways: tuple[dict[str, int], ...]
    final: frozenset[int]


@dataclass
class Builder:
    """Makes parts of one language. No part is to be used twice: it stands for positions."""

    characters: list[str] = field(default_factory=list)
    """Any of which stands at a position."""
    follow: list[set[int]] = field(default_factory=list)
    """The positions that can come after one."""

    def one_of(self, characters: str) -> Part:
        """A single character."""
        self.characters.append(characters)
        self.follow.append(set())
        here = frozenset({len(self.characters) - 1})
        return Part(False, here, here)

    def text(self, text: str) -> Part:
        """That text."""
        return self.chain(*map(self.one_of, text))

    def chain(self, *parts: Part) -> Part:
        """One after the other."""
        whole = Part(True, frozenset(), frozenset())
        for part in parts:
            self._follow(whole.last, part.first)
            whole = Part(
                whole.empty and part.empty,
                whole.first | part.first if whole.empty else whole.first,
                whole.last | part.last if part.empty else part.last,
            )
        return whole

    def either(self, *parts: Part) -> Part:
        """Any of them."""
        return Part(
            any(part.empty for part in parts),
            frozenset().union(*(part.first for part in parts)),
            frozenset().union(*(part.last for part in parts)),
        )

    def maybe(self, part: Part) -> Part:
        """It or nothing."""
        return Part(True, part.first, part.last)

    def repeated(self, part: Part) -> Part:
        """It, once or more often."""
        self._follow(part.last, part.first)
        return part

    def _follow(self, last: frozenset[int], first: frozenset[int]) -> None:
        for position in last:
            self.follow[position] |= first

    def table(self, part: Part) -> Table:
        """The automaton of a whole text."""
        after = {START: part.first, **{position: frozenset(those) for position, those in enumerate(self.follow)}}
        states = [frozenset({START})]
        numbers = {states[0]: 0}
        ways: list[dict[str, int]] = []
        for state in states:  # grows while it is gone through
            reached: defaultdict[str, set[int]] = defaultdict(set)
            for position in state:
                for following in after[position]:
                    for character in self.characters[following]:
                        reached[character].add(following)
            ways.append({})
            for character, positions in sorted(reached.items()):
                target = frozenset(positions)
                if target not in numbers:
                    numbers[target] = len(states)
                    states.append(target)
                ways[-1][character] = numbers[target]
        last = part.last | {START} if part.empty else part.last
        return Table(tuple(ways), frozenset(numbers[state] for state in states if state & last))
