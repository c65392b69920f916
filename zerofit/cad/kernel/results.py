"""What the kernel says of a shape."""

from __future__ import annotations

from dataclasses import dataclass

from zerofit.cad.shape import Vector


@dataclass(frozen=True)
class Solid:
    """A shape that OpenCASCADE could build and found valid, in the shape's own units."""

    volume: float
    area: float
    """Of the whole surface."""
    box: tuple[Vector, Vector]
    """Smallest and largest coordinates."""
    faces: int
    """As OpenCASCADE makes them: some may continue others."""
    bodies: int
    """Solids that do not touch."""


@dataclass(frozen=True)
class Invalid:
    """A shape that makes no valid solid, or whose geometry could not be worked out."""

    reason: str
    """One line."""
