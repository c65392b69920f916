"""Embedded parts: a construction sequence and a caption for each, the same on any machine.

A part is a function of (seed, index). Which parts belong to training and which to testing is settled once for all
seeds, by a hash of kind and parameters: no part of training is one of a test, in any wording.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from hashlib import sha256

from zerofit.cad.parts.bent import Bracket, Channel
from zerofit.cad.parts.drawing import UNITS
from zerofit.cad.parts.form import Form, every
from zerofit.cad.parts.plates import FourHolePlate, Plate, SlottedPlate
from zerofit.cad.parts.stepped import SteppedBlock
from zerofit.cad.parts.turned import Flange, Shaft, Washer
from zerofit.cad.sequence import Sequence
from zerofit.config.errors import UserError

FORMS: tuple[type[Form], ...] = (
    Plate,
    FourHolePlate,
    SlottedPlate,
    Bracket,
    Channel,
    Washer,
    Flange,
    Shaft,
    SteppedBlock,
)
"""The families: each is drawn as often as any other."""
TEST_SHARE = 0.2
"""Of parts."""
TRIES = 10_000
"""Indices looked at in a row without a new part, before there are taken to be no more."""


@dataclass(frozen=True)
class Part:
    """A part and what is said of it."""

    kind: str
    """The family's name."""
    parameters: tuple[int, ...]
    """Lengths in 1/128 of the shape's unit; what they are is told by `families`."""
    sequence: Sequence
    caption: str
    volume: float
    """Of the shape, in cubes of its unit; exact."""

    @property
    def held_out(self) -> bool:
        """Whether it is kept for testing."""
        digest = sha256(" ".join((self.kind, *map(str, self.parameters))).encode()).digest()
        return int.from_bytes(digest[:8], "big") < TEST_SHARE * 2**64


def part(seed: int, index: int) -> Part:
    """The part of that seed and index."""
    draws = random.Random(f"{seed} {index}")  # of a text: the same in every release

    def below(count: int) -> int:
        return int(draws.random() * count)  # the one method whose numbers never change

    form = FORMS[below(len(FORMS))].draw(lambda numbers: numbers[below(len(numbers))])
    captions = form.captions
    caption = captions[below(len(captions))]
    return Part(form.kind, form.parameters, form.sequence, caption, form.volume / UNITS**3)


def split(seed: int, train: int, test: int) -> tuple[list[Part], list[Part]]:
    """`train` parts to learn from and `test` to be tested on; no caption twice, no part in both.

    They are those of indices 0, 1, 2, ... Raises UserError where there are too few.
    """
    if min(train, test) < 0:
        raise UserError(f"train={train}, test={test}: are to be at least 0")
    sides: tuple[list[Part], list[Part]] = ([], [])
    wanted = (train, test)
    seen: set[str] = set()
    index = newest = 0
    while len(seen) < train + test:
        if index - newest > TRIES:
            raise UserError(f"there are too few parts for {train} + {test}: found {len(sides[0])} + {len(sides[1])}")
        found = part(seed, index)
        side = sides[found.held_out]
        if len(side) < wanted[found.held_out] and found.caption not in seen:
            seen.add(found.caption)
            side.append(found)
            newest = index
        index += 1
    return sides


@dataclass(frozen=True)
class Family:
    """What documentation says of a family."""

    kind: str
    description: str
    parameters: tuple[str, ...]
    parts: int
    """With different parameters."""
    example: str
    """A caption."""


def families() -> tuple[Family, ...]:
    """All of them. Counting their parts takes a second."""
    found = []
    for form in FORMS:
        forms = list(every(form))
        found.append(Family(form.kind, form.description, form.names(), len(forms), forms[0].captions[0]))
    return tuple(found)
