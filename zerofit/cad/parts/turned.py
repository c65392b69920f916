"""Round parts. The origin is the centre of their lower face, their axis is z."""

from __future__ import annotations

from dataclasses import dataclass
from math import pi
from typing import ClassVar, Self

from zerofit.cad.parts.drawing import circle, extrude
from zerofit.cad.parts.form import Form, Pick, grid
from zerofit.cad.sequence import Sequence
from zerofit.cad.shape import Operation


@dataclass(frozen=True)
class Washer(Form):
    """A disc with a bore."""

    kind: ClassVar[str] = "washer"
    description: ClassVar[str] = "a washer: a disc with a bore"

    radius: int
    bore: int
    thickness: int

    @classmethod
    def draw(cls, pick: Pick) -> Self:
        """The ring is 8 or more wide."""
        radius = pick(grid(24, 96, 4))
        return cls(radius, pick(grid(8, radius - 8, 4)), pick(grid(4, 24, 4)))

    @property
    def sequence(self) -> Sequence:
        """One extrusion of two circles."""
        return Sequence((extrude(circle(0, 0, self.radius), circle(0, 0, self.bore), by=self.thickness),))

    @property
    def volume(self) -> float:
        """Of the ring."""
        return pi * (self.radius**2 - self.bore**2) * self.thickness

    @property
    def captions(self) -> tuple[str, ...]:
        """By its radii."""
        radius, bore, thick = self.parameters
        return (
            f"A washer of radius {radius} with a bore of radius {bore}, {thick} thick.",
            f"Washer: outer radius {radius}, inner radius {bore}, thickness {thick}.",
            f"Make a ring of thickness {thick}, out to radius {radius} and open within radius {bore}.",
        )


@dataclass(frozen=True)
class Flange(Form):
    """A disc with four holes on a circle round a hub; a bore goes through disc and hub."""

    kind: ClassVar[str] = "flange"
    description: ClassVar[str] = "a flange: a disc with four holes round a hub, and a bore through both"

    radius: int
    thickness: int
    bore: int
    hole: int
    circle: int
    """On which the holes' centres lie."""
    hub: int
    height: int
    """Of the hub over the disc."""

    @classmethod
    def draw(cls, pick: Pick) -> Self:
        """The hub is 8 or more thick, holes lie 8 or more from it and from the rim."""
        radius, thickness = pick(grid(56, 96)), pick(grid(8, 16, 4))
        hub = pick(grid(24, radius - 32))
        on = pick(grid(hub + 16, radius - 16))
        return cls(radius, thickness, pick(grid(8, 16, 4)), pick(grid(4, 8, 2)), on, hub, pick(grid(16, 40)))

    @property
    def sequence(self) -> Sequence:
        """The disc with its holes; then the hub on it."""
        bore, on = circle(0, 0, self.bore), self.circle
        holes = (circle(x, y, self.hole) for x, y in ((on, 0), (0, on), (-on, 0), (0, -on)))
        hub = (circle(0, 0, self.hub), bore)
        return Sequence(
            (
                extrude(circle(0, 0, self.radius), bore, *holes, by=self.thickness),
                extrude(*hub, by=self.height, at=(0, 0, self.thickness), operation=Operation.JOIN),
            )
        )

    @property
    def volume(self) -> float:
        """Of the disc without its holes, and of the hub."""
        disc = pi * (self.radius**2 - self.bore**2 - 4 * self.hole**2) * self.thickness
        return disc + pi * (self.hub**2 - self.bore**2) * self.height

    @property
    def captions(self) -> tuple[str, ...]:
        """By its disc, its holes and its hub."""
        radius, thick, bore, hole, on, hub, high = self.parameters
        return (
            f"A flange of radius {radius}, {thick} thick, bore {bore}, with four holes of radius {hole} on a circle of "
            f"radius {on} and a hub of radius {hub}, {high} high.",
            f"Flange: radius {radius}, thickness {thick}, bore radius {bore}; four bolt holes of radius {hole} at a "
            f"distance of {on}; hub of radius {hub} and height {high}.",
            f"Make a round flange, {thick} thick and {radius} in radius. Put a hub of radius {hub} and height {high} "
            f"on it, bore both with radius {bore}, and drill four holes of radius {hole} at {on} from the centre.",
        )


@dataclass(frozen=True)
class Shaft(Form):
    """Three cylinders on one another, each thinner than the one below."""

    kind: ClassVar[str] = "shaft"
    description: ClassVar[str] = "a shaft of three steps, each thinner than the one below"

    first_radius: int
    first_length: int
    second_radius: int
    second_length: int
    third_radius: int
    third_length: int

    @classmethod
    def draw(cls, pick: Pick) -> Self:
        """Steps differ by 4 or more in radius; the whole is 96 long at most."""
        first = pick(grid(24, 48, 4))
        second = pick(grid(16, first - 4, 4))
        third = pick(grid(8, second - 4, 4))
        return cls(first, pick(grid(8, 24)), second, pick(grid(16, 40)), third, pick(grid(16, 32)))

    @property
    def _levels(self) -> tuple[int, int]:
        """Where the second and the third step begin."""
        return self.first_length, self.first_length + self.second_length

    @property
    def sequence(self) -> Sequence:
        """A cylinder, and two joined on top."""
        second, third = self._levels
        join = Operation.JOIN
        return Sequence(
            (
                extrude(circle(0, 0, self.first_radius), by=self.first_length),
                extrude(circle(0, 0, self.second_radius), by=self.second_length, at=(0, 0, second), operation=join),
                extrude(circle(0, 0, self.third_radius), by=self.third_length, at=(0, 0, third), operation=join),
            )
        )

    @property
    def volume(self) -> float:
        """Of three cylinders."""
        r1, l1, r2, l2, r3, l3 = self.parameters
        return pi * (r1**2 * l1 + r2**2 * l2 + r3**2 * l3)

    @property
    def captions(self) -> tuple[str, ...]:
        """Step by step, with the heights at which they begin."""
        r1, l1, r2, l2, r3, l3 = self.parameters
        second, third = self._levels
        return (
            f"A shaft: radius {r1} for {l1}, then from z {second} radius {r2} for {l2}, then from z {third} radius "
            f"{r3} for {l3}.",
            f"Stepped shaft of radii {r1}, {r2} and {r3}. Lengths: {l1}, {l2} and {l3}. The upper steps begin at z "
            f"{second} and {third}.",
            f"Turn a shaft with three steps. Below, radius {r1} and length {l1}. At z {second}, radius {r2} and length "
            f"{l2}. At z {third}, radius {r3} and length {l3}.",
        )
