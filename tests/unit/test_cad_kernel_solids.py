"""Solids that OpenCASCADE makes of sequences have the volume, area and box that they must have."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from cad_solids import COMMON, CUBE, CUT, JOIN, NEW, block, box, disc, extrusion, loop, polygon, rectangle, shape
from hypothesis import given, settings
from hypothesis import strategies as st

from zerofit.cad.kernel import Invalid, Kernel, Solid
from zerofit.cad.shape import Arc, Circle, Extent, Frame, Line, Operation, Shape

UNIT = rectangle((0, 0), (1, 1))
TILTED = Frame((1.0, 2.0, 3.0), (0.6, 0.8, 0.0), (0.0, 0.0, 1.0), (0.8, -0.6, 0.0))


@pytest.fixture(scope="module")
def kernel() -> Iterator[Kernel]:
    with Kernel() as one:
        yield one


def solid(kernel: Kernel, part: Shape) -> Solid:
    measured = kernel.measure(part)
    assert isinstance(measured, Solid), measured
    return measured


def test_a_box_is_exact(kernel: Kernel) -> None:
    measured = solid(kernel, box((-1, 2, 3), (1, 5, 7)))
    assert measured.volume == pytest.approx(24, rel=1e-12)
    assert measured.area == pytest.approx(2 * (6 + 8 + 12), rel=1e-12)
    assert np.array(measured.box) == pytest.approx(np.array([(-1, 2, 3), (1, 5, 7)]), abs=1e-9)
    assert (measured.faces, measured.bodies) == (6, 1)


@pytest.mark.parametrize(
    ("extent", "distances", "low", "high"),
    [
        (Extent.ONE_SIDE, (2.0, 0.0), 0, 2),
        (Extent.ONE_SIDE, (-2.0, 0.0), -2, 0),
        (Extent.SYMMETRIC, (2.0, 0.0), -2, 2),
        (Extent.TWO_SIDES, (2.0, 1.0), -1, 2),
        (Extent.TWO_SIDES, (2.0, -1.0), 1, 2),
    ],
)
def test_an_extrusion_goes_where_its_extent_says(
    kernel: Kernel, extent: Extent, distances: tuple[float, float], low: float, high: float
) -> None:
    measured = solid(kernel, shape(extrusion(UNIT, distances=distances, extent=extent)))
    assert [corner[2] for corner in measured.box] == pytest.approx([low, high], abs=1e-9)
    assert measured.volume == pytest.approx(high - low)


def test_a_sketch_lies_in_its_frame(kernel: Kernel) -> None:
    """One unit along x, two along y, three along the normal of a tilted plane."""
    measured = solid(kernel, shape(extrusion(rectangle((0, 0), (1, 2)), distances=(3.0, 0.0), frame=TILTED)))
    axes = np.array([TILTED.x_axis, TILTED.y_axis, TILTED.normal])
    corners = np.array(TILTED.origin) + np.array([(u, v, w) for u in (0, 1) for v in (0, 2) for w in (0, 3)]) @ axes
    assert np.array(measured.box) == pytest.approx(np.array([corners.min(0), corners.max(0)]), abs=1e-9)
    assert measured.volume == pytest.approx(6)


HALF = math.pi / 2
PROFILES = {
    "a disc": ([disc(1, 1, 2)], math.pi * 4),
    "a ring, inside listed first": ([disc(0, 0, 1), disc(0, 0, 2)], math.pi * 3),
    "a half disc": ([loop(Arc((1, 0), (0, 1), (-1, 0)), Line((-1, 0), (1, 0)))], HALF),
    "a disc of two arcs": ([loop(Arc((1, 0), (0, 1), (-1, 0)), Arc((-1, 0), (0, -1), (1, 0)))], math.pi),
    "a clockwise loop": ([polygon((0, 0), (0, 1), (1, 1), (1, 0))], 1),
    "a straight arc": ([loop(Arc((0, 0), (1, 0), (2, 0)), Line((2, 0), (1, 1)), Line((1, 1), (0, 0)))], 1),
    "a line of no length": ([loop(*UNIT.curves[:2], Line((1, 1), (1, 1)), *UNIT.curves[2:])], 1),
    "a loop that closes nearly": ([loop(*UNIT.curves[:3], Line((0, 1), (1e-6, 1e-6)))], 1),
    "a hole that touches the edge": ([rectangle((0, 0), (2, 2)), disc(1, 0.5, 0.5)], 4 - math.pi / 4),
    "a hole that shares an edge": ([rectangle((0, 0), (2, 2)), rectangle((0, 0), (1, 1))], 3),
    "a hole that reaches out": ([rectangle((0, 0), (2, 2)), rectangle((-0.5, -0.5), (1, 1))], 3),
    "holes that touch": ([rectangle((0, 0), (4, 2)), rectangle((1, 0.5), (2, 1.5)), rectangle((2, 0.5), (3, 1.5))], 6),
    "holes one in another": ([rectangle((0, 0), (4, 4)), rectangle((1, 1), (3, 3)), rectangle((1, 1), (2, 2))], 12),
    "a hole that leaves two": ([rectangle((0, 0), (3, 1)), rectangle((1, -0.5), (2, 1.5))], 2),
}


@pytest.mark.parametrize(("loops", "area"), PROFILES.values(), ids=PROFILES)
def test_a_profile_encloses_its_largest_loop_less_the_others(kernel: Kernel, loops: list[object], area: float) -> None:
    for size in (1e-3, 1.0, 1e3):
        measured = solid(kernel, scaled(shape(extrusion(*loops)), size))  # type: ignore[arg-type]
        assert measured.volume == pytest.approx(area * size**3, rel=2e-6)


def scaled(part: Shape, size: float) -> Shape:
    """The same part in other units."""

    def move(place: tuple[float, float]) -> tuple[float, float]:
        return (place[0] * size, place[1] * size)

    def curve(one: Line | Arc | Circle) -> Line | Arc | Circle:
        match one:
            case Line():
                return Line(move(one.start), move(one.end))
            case Arc():
                return Arc(move(one.start), move(one.middle), move(one.end))
        return Circle(move(one.center), one.radius * size)

    return Shape(
        tuple(
            replace(
                made,
                loops=tuple(loop(*map(curve, path.curves)) for path in made.loops),
                distances=move(made.distances),
            )
            for made in part.extrusions
        )
    )


SPACE = 4
PLACES = st.integers(0, SPACE - 1)
SPANS = st.tuples(PLACES, st.integers(1, SPACE)).map(lambda span: (span[0], min(SPACE, span[0] + span[1])))
STEPS = st.tuples(st.sampled_from(Operation), st.tuples(SPANS, SPANS, SPANS))


@settings(max_examples=60)
@given(st.lists(STEPS, min_size=1, max_size=5))
def test_blocks_on_a_grid_come_out_as_their_cells(
    kernel: Kernel, steps: list[tuple[Operation, tuple[tuple[int, int], ...]]]
) -> None:
    """Blocks that share faces, edges and corners are where solid modelling errs."""
    cells, made, emptied = np.zeros((SPACE,) * 3, bool), [], False
    for number, (drawn, spans) in enumerate(steps):
        operation = NEW if number == 0 else drawn
        here = np.zeros_like(cells)
        here[tuple(slice(*span) for span in spans)] = True
        cells = {CUT: cells & ~here, COMMON: cells & here}.get(operation, cells | here)
        low, high = zip(*spans, strict=True)
        made.append(block(low, high, operation))
        emptied |= not cells.any()
    measured = kernel.measure(shape(*made))
    if emptied:
        assert isinstance(measured, Invalid)
        assert "nothing is left" in measured.reason
        return
    assert isinstance(measured, Solid), measured
    assert measured.volume == pytest.approx(cells.sum(), rel=1e-9)
    filled = np.argwhere(cells)
    assert np.array(measured.box) == pytest.approx(np.array([filled.min(0), filled.max(0) + 1]), abs=1e-6)


def test_bodies_that_do_not_touch_are_counted(kernel: Kernel) -> None:
    apart = solid(kernel, shape(block((0, 0, 0), (1, 1, 1)), block((2, 0, 0), (3, 1, 1))))
    joined = solid(kernel, shape(block((0, 0, 0), (1, 1, 1)), block((1, 0, 0), (3, 1, 1))))
    assert (apart.bodies, joined.bodies) == (2, 1)
    assert joined.area == pytest.approx(14)


OPEN = loop(*UNIT.curves[:3])
WRONG = {
    "it has no extrusion": shape(),
    "a number in it is not finite": shape(extrusion(UNIT, distances=(math.nan, 0.0))),
    "it has no size": shape(extrusion(disc(0, 0, 0), distances=(0.0, 0.0))),
    "extrusion 1: it has no length": shape(extrusion(UNIT, distances=(0.0, 0.0))),
    "extrusion 1: its profile has no loop": shape(extrusion()),
    "extrusion 1: there is no body yet to cut": shape(extrusion(UNIT, operation=CUT)),
    "extrusion 2: nothing is left of the body": shape(extrusion(UNIT), extrusion(disc(0, 0, 3), operation=CUT)),
    "extrusion 2: loop 1: it is open by 1": shape(extrusion(UNIT), extrusion(OPEN, operation=JOIN)),
    "extrusion 1: loop 1: it crosses or touches itself": shape(extrusion(polygon((0, 0), (1, 1), (1, 0), (0, 1)))),
    "extrusion 1: loop 1: it encloses nothing": shape(extrusion(polygon((0, 0), (1, 1)))),
    "extrusion 1: loop 1: an arc ends where it starts": shape(
        extrusion(loop(Arc((0, 0), (1, 1), (0, 0)), Line((0, 0), (0, 0)), Arc((0, 0), (1, 1), (0, 0))))
    ),
    "extrusion 1: loop 2: its circle has no radius": shape(extrusion(UNIT, disc(0, 0, 0))),
    "extrusion 1: loop 1: a circle is a loop of its own": shape(extrusion(loop(*UNIT.curves, Circle((0, 0), 1)))),
    "extrusion 1: its holes leave nothing of its profile": shape(extrusion(UNIT, UNIT)),
}


@pytest.mark.parametrize(("reason", "part"), WRONG.items(), ids=WRONG)
def test_what_is_no_solid_says_why(kernel: Kernel, reason: str, part: Shape) -> None:
    assert kernel.measure(part) == Invalid(reason)


def test_iou_of_known_boxes(kernel: Kernel) -> None:
    half, quarter = box((0.5, 0, 0), (1.5, 1, 1)), box((0.5, 0.5, 0), (1.5, 1.5, 1))
    assert kernel.iou(CUBE, CUBE) == 1
    assert kernel.iou(CUBE, half) == pytest.approx(1 / 3, rel=1e-9)
    assert kernel.iou(quarter, CUBE) == pytest.approx(1 / 7, rel=1e-9)
    assert kernel.iou(CUBE, box((0, 0, 0), (10, 1, 1))) == pytest.approx(0.1, rel=1e-9)
    assert kernel.iou(CUBE, box((5, 0, 0), (6, 1, 1))) == 0
    assert kernel.iou(CUBE, box((1, 0, 0), (2, 1, 1))) == pytest.approx(0, abs=1e-9)
    assert kernel.iou(CUBE, shape()) == Invalid("it has no extrusion")


def test_iou_of_round_parts_is_close(kernel: Kernel) -> None:
    """A disc in a disc, and one that is moved: a lens."""
    big, small, moved = (shape(extrusion(disc(x, 0, r))) for x, r in ((0, 2), (0, 1), (2, 2)))
    lens = 2 * 4 * math.acos(0.5) - math.sqrt(12)
    assert kernel.iou(big, small) == pytest.approx(1 / 4, rel=1e-3)
    assert kernel.iou(big, moved) == pytest.approx(lens / (8 * math.pi - lens), rel=1e-3)
    assert kernel.iou(big, big) == 1
