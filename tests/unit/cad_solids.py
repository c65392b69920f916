"""Shapes whose solids are known, and a kernel to make them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from zerofit.cad.shape import Circle, Curve, Extent, Extrusion, Frame, Line, Loop, Operation, Point, Shape, Vector

TOP = Frame((0.0, 0.0, 0.0), (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
NEW, JOIN, CUT, COMMON = Operation.NEW_BODY, Operation.JOIN, Operation.CUT, Operation.INTERSECT


def polygon(*corners: Point) -> Loop:
    return Loop(tuple(Line(one, other) for one, other in zip(corners, (*corners[1:], corners[0]), strict=True)))


def rectangle(low: Point, high: Point) -> Loop:
    return polygon(low, (high[0], low[1]), high, (low[0], high[1]))


def disc(x: float, y: float, radius: float) -> Loop:
    return Loop((Circle((x, y), radius),))


def loop(*curves: Curve) -> Loop:
    return Loop(curves)


def extrusion(
    *loops: Loop,
    distances: tuple[float, float] = (1.0, 0.0),
    operation: Operation = NEW,
    extent: Extent = Extent.ONE_SIDE,
    frame: Frame = TOP,
) -> Extrusion:
    return Extrusion(frame, loops, distances, operation, extent)


def block(low: Vector, high: Vector, operation: Operation = NEW) -> Extrusion:
    frame = Frame((0.0, 0.0, low[2]), TOP.x_axis, TOP.y_axis, TOP.normal)
    sides = rectangle((low[0], low[1]), (high[0], high[1]))
    return extrusion(sides, distances=(high[2] - low[2], 0.0), operation=operation, frame=frame)


def shape(*extrusions: Extrusion) -> Shape:
    return Shape(extrusions)


def box(low: Vector, high: Vector) -> Shape:
    return shape(block(low, high))


CUBE = box((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
PLATE = shape(extrusion(rectangle((0, 0), (4, 3)), disc(1, 1, 0.5), disc(3, 2, 0.25)))
"""With two holes: a part with flat and round faces."""


def stl_triangles(content: bytes) -> NDArray[np.float32]:
    """[n, 3, 3]: the corners in a binary STL."""
    row = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])
    count = int.from_bytes(content[80:84], "little")
    assert len(content) == 84 + count * row.itemsize
    return np.frombuffer(content, row, offset=84)["corners"]
