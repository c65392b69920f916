"""How parts are drawn in 8 bits: lengths are whole numbers of one unit, 1/128 of a shape's, in sketches as in space.

A sketch's box of size 95 makes the two grids one: DeepCAD scales profiles by (256 / 2 * 0.75 - 1) / size = 95 / size
(Wu et al. 2021, arXiv 2105.09492). So nothing is rounded, and a caption's lengths are those of the commands.
"""

from __future__ import annotations

from zerofit.cad.sequence import ArcTo, CircleAt, Extrude, LineTo, Path, Place
from zerofit.cad.shape import Extent, Operation

UNITS = 128
"""In a shape's unit of length."""
MIDDLE = 128
"""The 8-bit number of coordinate 0, of length 0 and of angle 0."""
SAME_SIZE = 95
"""Of a sketch's box, where its grid is that of space."""
HALF_TURN = 128
"""Of an arc's sweep."""

TOP = (128, 128, 128)
"""The angles of a sketch seen from above: its x and y are those of space, and it is extruded along z."""
SIDE = (192, 128, 192)
"""Seen from the right: its x is space's y, its y is z, and it is extruded along x."""
FRONT = (192, 64, 192)
"""Seen from the front: its x is space's x, its y is z, and it is extruded against y."""


def polygon(*corners: Place) -> Path:
    """The loop from the first corner over the others and back to it."""
    return Path(tuple(LineTo(_place(*corner)) for corner in (*corners[1:], corners[0])))


def rectangle(width: int, depth: int) -> Path:
    """The loop from (0, 0) over (width, depth) and back."""
    return polygon((0, 0), (width, 0), (width, depth), (0, depth))


def circle(x: int, y: int, radius: int) -> Path:
    """The loop that is one circle."""
    return Path((CircleAt(_place(x, y), radius),))


def slot(x: tuple[int, int], y: tuple[int, int]) -> Path:
    """A hole from `x[0]` to `x[1]`, between `y[0]` and `y[1]`, and half a circle more at both ends."""
    return Path(
        (
            LineTo(_place(x[1], y[0])),
            ArcTo(_place(x[1], y[1]), HALF_TURN, counter_clockwise=True),
            LineTo(_place(x[0], y[1])),
            ArcTo(_place(x[0], y[0]), HALF_TURN, counter_clockwise=True),
        )
    )


def extrude(
    *paths: Path,
    by: int,
    angles: tuple[int, int, int] = TOP,
    at: tuple[int, int, int] = (0, 0, 0),
    operation: Operation = Operation.NEW_BODY,
) -> Extrude:
    """The profile of these loops, its (0, 0) at a place in space, extruded to one side."""
    return Extrude(
        paths=paths,
        angles=angles,
        origin=(MIDDLE + at[0], MIDDLE + at[1], MIDDLE + at[2]),
        size=SAME_SIZE,
        distances=(MIDDLE + by, MIDDLE),
        operation=operation,
        extent=Extent.ONE_SIDE,
    )


def _place(x: int, y: int) -> Place:
    return MIDDLE + x, MIDDLE + y
