"""A construction sequence in real numbers: sketches that are extruded and joined; what becomes a solid."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

Point = tuple[float, float]
"""In the coordinates of a sketch."""
Vector = tuple[float, float, float]
Box = tuple[Vector, Vector]
"""The least and the greatest coordinates of a part."""


class Operation(IntEnum):
    """What an extrusion does to the body so far; DeepCAD's numbers (Wu et al. 2021, arXiv 2105.09492)."""

    NEW_BODY = 0
    JOIN = 1
    CUT = 2
    INTERSECT = 3


class Extent(IntEnum):
    """Where an extrusion goes from its sketch; DeepCAD's numbers. SYMMETRIC goes the whole first distance both ways."""

    ONE_SIDE = 0
    SYMMETRIC = 1
    TWO_SIDES = 2


@dataclass(frozen=True)
class Line:
    """A straight edge."""

    start: Point
    end: Point


@dataclass(frozen=True)
class Arc:
    """The arc of a circle from `start` over `middle` to `end`."""

    start: Point
    middle: Point
    end: Point


@dataclass(frozen=True)
class Circle:
    """A whole circle: a loop of its own."""

    center: Point
    radius: float


Curve = Line | Arc | Circle


@dataclass(frozen=True)
class Loop:
    """Curves that close, each from where the one before ends."""

    curves: tuple[Curve, ...]


@dataclass(frozen=True)
class Frame:
    """Where a sketch lies: orthonormal axes; `normal` is x cross y, the direction of extrusion."""

    origin: Vector
    x_axis: Vector
    y_axis: Vector
    normal: Vector


@dataclass(frozen=True)
class Extrusion:
    """A profile swept along its normal. Of its loops the one of largest area is the outside, the others are holes."""

    frame: Frame
    loops: tuple[Loop, ...]
    distances: tuple[float, float]
    """Along the normal (may be negative), and of TWO_SIDES against it; the second is 0 otherwise."""
    operation: Operation
    extent: Extent


@dataclass(frozen=True)
class Shape:
    """A part: its extrusions in the order in which they are made."""

    extrusions: tuple[Extrusion, ...]
