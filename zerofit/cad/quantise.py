"""Construction sequences in 8 bits, and back (DeepCAD's numbers: Wu et al. 2021, arXiv 2105.09492, section 3.1).

A part is first scaled about the origin to fit the cube from -0.75 to 0.75. Then, of n = 256 levels:
- a place in space or a distance v is (v + 1) / 2 * n;
- an angle v is (v / pi + 1) / 2 * n;
- a sketch's size v, how far its profile reaches from its start, is v / 2 * n;
- a profile's curves are scaled to a reach of 0.75 * n / 2 - 1 levels from its start, which lies at (n / 2, n / 2);
- an arc's sweep v is v / (2 * pi) * n, at least 1.
All are rounded (halves to the even level) and clipped to 0 .. n - 1.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

from zerofit.cad.errors import CadError
from zerofit.cad.loops import moved, reach, start
from zerofit.cad.planes import angles_of, frame_of
from zerofit.cad.sequence import ArcTo, CircleAt, Command, Extrude, LineTo, Path, Place, Sequence
from zerofit.cad.shape import Arc, Box, Circle, Curve, Extent, Extrusion, Line, Loop, Point, Shape

LEVELS = 256
CUBE = 0.75
"""Half the side of the cube that a part is scaled to fit."""
CENTER = LEVELS // 2
REACH = LEVELS / 2 * CUBE - 1
"""Levels that a profile reaches from its start."""
TINY = 1e-12
"""What is smaller has no size."""


def normalise(shape: Shape, box: Box) -> Shape:
    """The part scaled about the origin so that no coordinate of `box`, its own, exceeds 0.75.

    Raises CadError where all of the box lies at the origin.
    """
    scale = _scale(box)
    return Shape(tuple(_scaled(extrusion, scale) for extrusion in shape.extrusions))


def quantise(shape: Shape, box: Box | None = None) -> Sequence:
    """The commands of a part, which is normalised by `box`; without one it is normalised already.

    A lone circle's radius lies halfway between two levels, 47 and 48: to which it is rounded is the last bit's affair,
    so that a part quantised with its box, not normalised before, is what equals DeepCAD's vectors. Curves and loops
    are kept in order. Raises CadError where a profile or the box has no size.
    """
    scale = 1.0 if box is None else _scale(box)
    return Sequence(tuple(_extrude(extrusion, scale) for extrusion in shape.extrusions))


def dequantise(sequence: Sequence) -> Shape:
    """The normalised part that commands make.

    An angle's last level is pi: to it are clipped the normals that point straight down.
    """
    return Shape(tuple(_extrusion(extrude) for extrude in sequence.extrudes))


def _scale(box: Box) -> float:
    farthest = max(abs(value) for corner in box for value in corner)
    if farthest < TINY:
        raise CadError("the part's bounding box has no size")
    return CUBE / farthest


def _scaled(extrusion: Extrusion, scale: float) -> Extrusion:
    x, y, z = extrusion.frame.origin
    one, two = extrusion.distances
    return replace(
        extrusion,
        frame=replace(extrusion.frame, origin=(x * scale, y * scale, z * scale)),
        loops=tuple(moved(loop, (0.0, 0.0), scale) for loop in extrusion.loops),
        distances=(one * scale, two * scale),
    )


def _level(value: float) -> int:
    return min(max(round(value), 0), LEVELS - 1)


def _length_level(value: float) -> int:
    return _level((value + 1) / 2 * LEVELS)


def _angle_level(value: float) -> int:
    return _level((value / math.pi + 1) / 2 * LEVELS)


def _extrude(extrusion: Extrusion, scale: float) -> Extrude:
    frame, size = extrusion.frame, reach(extrusion.loops)
    if size * scale < TINY:
        raise CadError("a profile has no size")
    x, y = start(extrusion.loops[0])
    px, py, pz = (
        _length_level((x * across + y * up + at) * scale)
        for across, up, at in zip(frame.x_axis, frame.y_axis, frame.origin, strict=True)
    )
    theta, phi, gamma = map(_angle_level, angles_of(frame))
    one, two = (_length_level(distance * scale) for distance in extrusion.distances)
    return Extrude(
        paths=tuple(Path(tuple(_commands(moved(loop, (-x, -y), REACH / size)))) for loop in extrusion.loops),
        angles=(theta, phi, gamma),
        origin=(px, py, pz),
        size=_level(size * scale / 2 * LEVELS),
        distances=(one, two),
        operation=extrusion.operation,
        extent=extrusion.extent,
    )


def _commands(loop: Loop) -> Iterator[Command]:
    def place(point: Point) -> Place:
        return _level(point[0] + CENTER), _level(point[1] + CENTER)

    for curve in loop.curves:
        match curve:
            case Line():
                yield LineTo(place(curve.end))
            case Arc():
                sweep, counter_clockwise = _sweep(curve)
                yield ArcTo(place(curve.end), max(_level(sweep / math.tau * LEVELS), 1), counter_clockwise)
            case Circle():
                yield CircleAt(place(curve.center), _level(curve.radius))


def _sweep(arc: Arc) -> tuple[float, bool]:
    """How far it turns, in radians, and whether counter-clockwise: twice the turn from one half's chord to the next."""
    (ax, ay), (bx, by), (cx, cy) = arc.start, arc.middle, arc.end
    ux, uy, vx, vy = bx - ax, by - ay, cx - bx, cy - by
    turn = math.atan2(ux * vy - uy * vx, ux * vx + uy * vy)
    return 2 * abs(turn), turn >= 0


def _length(level: int) -> float:
    return level / LEVELS * 2 - 1


def _angle(level: int) -> float:
    return math.pi if level == LEVELS - 1 else _length(level) * math.pi


def _extrusion(extrude: Extrude) -> Extrusion:
    px, py, pz = map(_length, extrude.origin)
    one, two = map(_length, extrude.distances)
    step = extrude.size / LEVELS * 2 / REACH
    return Extrusion(
        frame=frame_of((px, py, pz), *map(_angle, extrude.angles)),
        loops=tuple(_loop(path, step) for path in extrude.paths),
        distances=(one, two if extrude.extent is Extent.TWO_SIDES else 0.0),
        operation=extrude.operation,
        extent=extrude.extent,
    )


def _loop(path: Path, step: float) -> Loop:
    """The curves of a path, about the profile's start; a level is `step`."""

    def at(place: Place) -> Point:
        return (place[0] - CENTER) * step, (place[1] - CENTER) * step

    curves: list[Curve] = []
    last = path.commands[-1]
    here = at(last.center if isinstance(last, CircleAt) else last.end)
    for command in path.commands:
        match command:
            case LineTo(end=place):
                end = at(place)
                curves.append(Line(here, end))
                here = end
            case ArcTo(end=place):
                end = at(place)
                curves.append(_arc(here, end, command))
                here = end
            case CircleAt(center=place, radius=radius):
                curves.append(Circle(at(place), radius * step))
    return Loop(tuple(curves))


def _arc(start: Point, end: Point, command: ArcTo) -> Arc:
    """Its middle lies off the chord's, to the right of the way where it turns left, by chord / 2 * tan(sweep / 4)."""
    bulge = math.tan(command.sweep / LEVELS * math.tau / 4) / 2 * (1 if command.counter_clockwise else -1)
    x, y = end[0] - start[0], end[1] - start[1]
    return Arc(start, ((start[0] + end[0]) / 2 + y * bulge, (start[1] + end[1]) / 2 - x * bulge), end)
