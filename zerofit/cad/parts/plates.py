"""Plates with holes or a slot. Their corner is the origin; holes are placed from there."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from math import pi
from typing import ClassVar, Self

from zerofit.cad.parts.drawing import circle, extrude, rectangle, slot
from zerofit.cad.parts.form import Form, Pick, grid
from zerofit.cad.sequence import Sequence


@dataclass(frozen=True)
class Drilled(Form):
    """A plate with round holes of one radius."""

    width: int
    depth: int
    thickness: int
    radius: int

    @property
    @abstractmethod
    def centres(self) -> tuple[tuple[int, int], ...]:
        """Of its holes, in the order in which they are drawn."""

    @property
    def sequence(self) -> Sequence:
        """One extrusion of the outline and a circle for each hole."""
        holes = (circle(x, y, self.radius) for x, y in self.centres)
        return Sequence((extrude(rectangle(self.width, self.depth), *holes, by=self.thickness),))

    @property
    def volume(self) -> float:
        """Without the holes."""
        return (self.width * self.depth - len(self.centres) * pi * self.radius**2) * self.thickness


@dataclass(frozen=True)
class Plate(Drilled):
    """Two holes, at `left` and `right` along it and at `across` across it."""

    kind: ClassVar[str] = "plate"
    description: ClassVar[str] = "a plate with two round holes"

    left: int
    right: int
    across: int

    @classmethod
    def draw(cls, pick: Pick) -> Self:
        """Holes lie 8 or more from edges, and from each other."""
        width, depth, thickness = pick(grid(56, 96)), pick(grid(32, 64)), pick(grid(4, 16, 4))
        left = pick(grid(16, width - 40))
        right = pick(grid(left + 24, width - 16))
        return cls(width, depth, thickness, pick(grid(4, 8, 2)), left, right, pick(grid(16, depth - 16)))

    @property
    def centres(self) -> tuple[tuple[int, int], ...]:
        """From left to right."""
        return ((self.left, self.across), (self.right, self.across))

    @property
    def captions(self) -> tuple[str, ...]:
        """By its size, then its holes."""
        w, d, t, r, left, right, y = self.parameters
        return (
            f"A plate {w} by {d}, {t} thick, with two holes of radius {r} at x {left} and {right}, y {y}.",
            f"Plate of width {w}, depth {d}, thickness {t}. Holes of radius {r}: x {left} and {right}, y {y}.",
            f"Make a flat plate, {w} wide, {d} deep and {t} thick. Drill it twice with radius {r}, at x {left} "
            f"and at x {right}, both at y {y}.",
        )


@dataclass(frozen=True)
class FourHolePlate(Drilled):
    """Four holes, at `left` and `right` along it and at `near` and `far` across it."""

    kind: ClassVar[str] = "four-hole plate"
    description: ClassVar[str] = "a plate with a round hole near each corner"

    left: int
    right: int
    near: int
    far: int

    @classmethod
    def draw(cls, pick: Pick) -> Self:
        """Holes lie 4 or more from edges, 8 or more from each other."""
        width, depth, thickness, radius = (
            pick(grid(56, 96)),
            pick(grid(56, 88)),
            pick(grid(4, 16, 4)),
            pick(grid(4, 8, 2)),
        )
        along, across = pick(grid(12, 16, 4)), pick(grid(12, 16, 4))
        return cls(width, depth, thickness, radius, along, width - along, across, depth - across)

    @property
    def centres(self) -> tuple[tuple[int, int], ...]:
        """From left to right, the near ones first."""
        return tuple((x, y) for y in (self.near, self.far) for x in (self.left, self.right))

    @property
    def captions(self) -> tuple[str, ...]:
        """By its size, then its holes."""
        w, d, t, r, left, right, near, far = self.parameters
        return (
            f"A plate {w} by {d}, {t} thick, with four holes of radius {r}, at x {left} and {right} and at y {near} "
            f"and {far}.",
            f"Plate of width {w}, depth {d}, thickness {t}. A hole in each corner, radius {r}: x {left} or {right}, "
            f"y {near} or {far}.",
            f"Make a mounting plate, {w} wide, {d} deep and {t} thick. Its four holes of radius {r} are centred on "
            f"x {left} and {right}, y {near} and {far}.",
        )


@dataclass(frozen=True)
class SlottedPlate(Form):
    """A slot with round ends, whose centres are at `left` and `right` along it, from `near` to `far` across it."""

    kind: ClassVar[str] = "slotted plate"
    description: ClassVar[str] = "a plate with one slot whose ends are round"

    width: int
    depth: int
    thickness: int
    left: int
    right: int
    near: int
    far: int

    @classmethod
    def draw(cls, pick: Pick) -> Self:
        """The slot lies 8 or more from edges, and is longer than it is wide."""
        width, depth, thickness = pick(grid(64, 96)), pick(grid(40, 64)), pick(grid(4, 16, 4))
        left = pick(grid(16, width - 40))
        right = pick(grid(left + 24, width - 16))
        near = pick(grid(8, depth - 24))
        return cls(width, depth, thickness, left, right, near, near + pick(grid(8, 16)))

    @property
    def sequence(self) -> Sequence:
        """One extrusion of the outline and the slot."""
        hole = slot((self.left, self.right), (self.near, self.far))
        return Sequence((extrude(rectangle(self.width, self.depth), hole, by=self.thickness),))

    @property
    def volume(self) -> float:
        """Without the slot: a rectangle and a circle."""
        across = self.far - self.near
        hole = (self.right - self.left) * across + pi * (across / 2) ** 2
        return (self.width * self.depth - hole) * self.thickness

    @property
    def captions(self) -> tuple[str, ...]:
        """By its size, then its slot."""
        w, d, t, left, right, near, far = self.parameters
        return (
            f"A plate {w} by {d}, {t} thick, with a slot from x {left} to {right} between y {near} and {far}.",
            f"Slotted plate of width {w}, depth {d}, thickness {t}. Slot: x {left} to {right}, y {near} to {far}.",
            f"Make a flat plate, {w} wide, {d} deep and {t} thick. Mill a slot with round ends into it, along x from "
            f"{left} to {right} and across y from {near} to {far}.",
        )
