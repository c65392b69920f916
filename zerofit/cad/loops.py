"""Curves put in order, as DeepCAD orders them (Wu et al. 2021, arXiv 2105.09492): one profile, one sequence.

A loop starts at its leftmost point (of several the lowest) and turns left there, so that it mostly runs
counter-clockwise; the loops of a profile are sorted by the least corners of their boxes, so the outside comes first.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from zerofit.cad.errors import CadError
from zerofit.cad.shape import Arc, Circle, Curve, Line, Loop, Point

DIGITS = 6
"""Decimals to which DeepCAD compares coordinates where it looks for a start."""
GAP = 1e-4
"""Of a loop's size: ends that lie farther apart do not meet."""


def start(loop: Loop) -> Point:
    """Where its first curve starts; of a circle the leftmost point."""
    first = loop.curves[0]
    return (first.center[0] - first.radius, first.center[1]) if isinstance(first, Circle) else first.start


def corners(loops: Sequence[Loop]) -> tuple[Point, Point]:
    """The least and the greatest coordinates of the loops; of an arc, as DeepCAD, of its three points alone."""
    xs, ys = zip(*(point for loop in loops for curve in loop.curves for point in _points(curve)), strict=True)
    return (min(xs), min(ys)), (max(xs), max(ys))


def reach(loops: Sequence[Loop]) -> float:
    """How far their corners lie from where the first loop starts, along the axis where that is farthest."""
    x, y = start(loops[0])
    return max(max(abs(corner[0] - x), abs(corner[1] - y)) for corner in corners(loops))


def moved(loop: Loop, by: Point, scale: float) -> Loop:
    """The loop moved by `by`, then scaled about the origin."""

    def at(point: Point) -> Point:
        return (point[0] + by[0]) * scale, (point[1] + by[1]) * scale

    def curve_at(curve: Curve) -> Curve:
        match curve:
            case Line():
                return Line(at(curve.start), at(curve.end))
            case Arc():
                return Arc(at(curve.start), at(curve.middle), at(curve.end))
            case Circle():
                return Circle(at(curve.center), curve.radius * scale)

    return Loop(tuple(map(curve_at, loop.curves)))


def in_order(loops: Sequence[Sequence[Curve]]) -> tuple[Loop, ...]:
    """The loops that curves make, in order. Raises CadError where a loop does not close."""
    return tuple(sorted((_ordered(_chain(curves)) for curves in loops), key=lambda loop: corners([loop])[0]))


def _points(curve: Curve) -> tuple[Point, ...]:
    match curve:
        case Line():
            return curve.start, curve.end
        case Arc():
            return curve.start, curve.middle, curve.end
        case Circle(center=(x, y), radius=radius):
            return (x - radius, y - radius), (x + radius, y + radius)


def _chain(curves: Sequence[Curve]) -> list[Curve]:
    """The curves, each turned to start where the one before ends."""
    if len(curves) == 1 and isinstance(curves[0], Circle):
        return list(curves)
    edges = [curve for curve in curves if not isinstance(curve, Circle)]
    if len(edges) < len(curves):
        raise CadError(f"a circle among the {len(curves)} curves of a loop: it is to be a loop of its own")
    first, following = edges[0], edges[1 % len(edges)]
    ends = following.start, following.end
    backwards = min(math.dist(first.start, end) for end in ends) < min(math.dist(first.end, end) for end in ends)
    chain = [_turned(first) if backwards else first]
    for edge in edges[1:]:
        at = chain[-1].end
        chain.append(_turned(edge) if math.dist(at, edge.end) < math.dist(at, edge.start) else edge)
    _check_closed(chain)
    return list(chain)


def _check_closed(chain: list[Line | Arc]) -> None:
    size = math.dist(*corners([Loop(tuple(chain))]))
    for number, (edge, following) in enumerate(pairwise([*chain, chain[0]])):
        gap = math.dist(edge.end, following.start)
        if gap > GAP * size:
            raise CadError(f"curve {number} of a loop ends {gap:.3g} from where the next starts: the loop is open")


def _ordered(chain: list[Curve]) -> Loop:
    edges = [curve for curve in chain if not isinstance(curve, Circle)]
    if not edges:
        return Loop(tuple(chain))
    first = min(range(len(edges)), key=lambda at: tuple(round(value, DIGITS) for value in edges[at].start))
    edges = edges[first:] + edges[:first]
    out, back = _leaving(edges[0]), _arriving(edges[-1])
    if back[0] * out[1] - back[1] * out[0] <= 0:
        edges = [_turned(edge) for edge in reversed(edges)]
    return Loop(tuple(edges))


def _turned(edge: Line | Arc) -> Line | Arc:
    if isinstance(edge, Line):
        return Line(edge.end, edge.start)
    return Arc(edge.end, edge.middle, edge.start)


def _leaving(edge: Line | Arc) -> Point:
    """The way from its start; of an arc, as DeepCAD, to its middle."""
    return _between(edge.start, edge.end if isinstance(edge, Line) else edge.middle)


def _arriving(edge: Line | Arc) -> Point:
    return _between(edge.start if isinstance(edge, Line) else edge.middle, edge.end)


def _between(one: Point, other: Point) -> Point:
    return other[0] - one[0], other[1] - one[1]
