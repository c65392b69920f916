"""Parts of one bent profile, drawn from the side and extruded along x. Their lower corner is the origin."""

from __future__ import annotations

from dataclasses import dataclass
from math import pi
from typing import ClassVar, Self

from zerofit.cad.parts.drawing import FRONT, SIDE, circle, extrude, polygon
from zerofit.cad.parts.form import Form, Pick, grid
from zerofit.cad.sequence import Sequence
from zerofit.cad.shape import Operation


@dataclass(frozen=True)
class Bracket(Form):
    """An L: a base along y and a wall along z, `length` along x. Half way along it a hole through each."""

    kind: ClassVar[str] = "bracket"
    description: ClassVar[str] = "an L-shaped bracket with a round hole in its base and one in its wall"

    length: int
    base: int
    height: int
    thickness: int
    radius: int
    along: int
    """Of the hole in the base, from the outside of the wall."""
    up: int
    """Of the hole in the wall, from below."""

    @classmethod
    def draw(cls, pick: Pick) -> Self:
        """Holes lie 8 or more from edges and from the bend."""
        length, base, height = pick(grid(32, 64, 16)), pick(grid(48, 96)), pick(grid(48, 80))
        thickness, radius = pick(grid(8, 16, 4)), pick(grid(4, 8, 2))
        return cls(length, base, height, thickness, radius, pick(grid(32, base - 16)), pick(grid(32, height - 16)))

    @property
    def sequence(self) -> Sequence:
        """The L; a cut from below through the base; a cut from within through the wall."""
        thick, middle, hole = self.thickness, self.length // 2, circle(0, 0, self.radius)
        corner = ((0, 0), (self.base, 0), (self.base, thick), (thick, thick), (thick, self.height), (0, self.height))
        return Sequence(
            (
                extrude(polygon(*corner), by=self.length, angles=SIDE),
                extrude(hole, by=thick, at=(middle, self.along, 0), operation=Operation.CUT),
                extrude(hole, by=thick, angles=FRONT, at=(middle, thick, self.up), operation=Operation.CUT),
            )
        )

    @property
    def volume(self) -> float:
        """Of the L without the two holes."""
        profile = (self.base + self.height - self.thickness) * self.thickness
        return profile * self.length - 2 * pi * self.radius**2 * self.thickness

    @property
    def captions(self) -> tuple[str, ...]:
        """By its size, then its holes."""
        long, base, high, thick, radius, along, up = self.parameters
        middle = self.length // 2
        return (
            f"An L-bracket {thick} thick and {long} long, base {base}, height {high}, with holes of radius {radius} at "
            f"x {middle}: y {along} in the base and z {up} in the wall.",
            f"Bracket: length {long}, base {base}, wall {high}, thickness {thick}. Holes of radius {radius} at "
            f"x {middle}, through the base at y {along}, through the wall at z {up}.",
            f"Make an angle bracket of length {long} from a base of {base} and a wall of {high}, both {thick} thick. "
            f"Drill both with radius {radius} at x {middle}, the base at y {along}, the wall at z {up}.",
        )


@dataclass(frozen=True)
class Channel(Form):
    """A U that is open above: walls along z stand on a base along y, `length` along x."""

    kind: ClassVar[str] = "channel"
    description: ClassVar[str] = "a U-shaped channel"

    length: int
    width: int
    height: int
    thickness: int

    @classmethod
    def draw(cls, pick: Pick) -> Self:
        """The opening is 24 or more wide and 12 or more deep."""
        return cls(pick(grid(32, 96)), pick(grid(48, 96)), pick(grid(24, 64)), pick(grid(4, 12, 4)))

    @property
    def _inside(self) -> int:
        """Where the far wall begins."""
        return self.width - self.thickness

    @property
    def sequence(self) -> Sequence:
        """One extrusion of the U."""
        thick, width, height, inside = self.thickness, self.width, self.height, self._inside
        outer = ((0, 0), (width, 0), (width, height), (inside, height))
        inner = ((inside, thick), (thick, thick), (thick, height), (0, height))
        return Sequence((extrude(polygon(*outer, *inner), by=self.length, angles=SIDE),))

    @property
    def volume(self) -> float:
        """Of the base and the two walls on it."""
        walls = 2 * (self.height - self.thickness) * self.thickness
        return (self.width * self.thickness + walls) * self.length

    @property
    def captions(self) -> tuple[str, ...]:
        """By its size and its opening."""
        (long, wide, high, thick), inside = self.parameters, self._inside
        return (
            f"A U-channel {long} long, {wide} wide and {high} high, {thick} thick, open from y {thick} to {inside}.",
            f"Channel of length {long}, width {wide}, height {high}, thickness {thick}. Inside: y {thick} to {inside}.",
            f"Make a channel of U profile, width {wide} and height {high}, with walls of {thick} that leave y {thick} "
            f"to {inside} free; its length is {long}.",
        )
