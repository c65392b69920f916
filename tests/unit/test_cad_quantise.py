"""8 bits and back: levels, planes and arcs."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from cad_examples import SEQUENCES, circle, document, extrusion, square
from hypothesis import assume, given
from hypothesis import strategies as st

from zerofit.cad import deepcad
from zerofit.cad.errors import CadError
from zerofit.cad.grammar import PLANES
from zerofit.cad.planes import angles_of, dot, frame_of
from zerofit.cad.quantise import dequantise, normalise, quantise
from zerofit.cad.sequence import ArcTo, CircleAt, Command, Extrude, LineTo, Path, Sequence
from zerofit.cad.shape import Arc, Extent, Frame, Operation, Shape, Vector


def test_a_square_plate_with_a_hole_in_numbers() -> None:
    shape, box = deepcad.read(document(extrusion("P", distance=0.5), P=[square(0, 1), [circle(0.5, 0.5, 0.25)]]))
    assert box is not None
    expected = Sequence(
        (
            Extrude(
                paths=(
                    Path((LineTo((223, 128)), LineTo((223, 223)), LineTo((128, 223)), LineTo((128, 128)))),
                    Path((CircleAt((176, 176), 24),)),
                ),
                angles=(128, 128, 128),
                origin=(128, 128, 128),
                size=96,
                distances=(176, 128),
                operation=Operation.NEW_BODY,
                extent=Extent.ONE_SIDE,
            ),
        )
    )
    assert quantise(shape, box) == expected
    assert quantise(normalise(shape, box)) == expected


def test_a_box_at_the_origin_has_no_size() -> None:
    nothing = ((0.0, 0.0, 0.0), (0.0, 0.0, 0.0))
    for use in (normalise, quantise):
        with pytest.raises(CadError, match="no size"):
            use(Shape(()), nothing)


AXES: tuple[Vector, ...] = ((1, 0, 0), (-1, 0, 0), (0, 1, 0), (0, -1, 0), (0, 0, 1), (0, 0, -1))


def cross(one: Vector, other: Vector) -> Vector:
    (a, b, c), (d, e, f) = one, other
    return b * f - c * e, c * d - a * f, a * e - b * d


@pytest.mark.parametrize("noise", [0.0, 1e-9, -1e-9])
@pytest.mark.parametrize("normal", AXES)
def test_planes_along_axes_come_back_exactly_and_noise_turns_none(normal: Vector, noise: float) -> None:
    """Straight down and towards -x included, whose angles are pi and are clipped."""
    shape, box = deepcad.read(document(extrusion("P"), P=[square(0, 1)]))
    plate = shape.extrusions[0]
    for x_axis in AXES:
        if dot(x_axis, normal) == 0:
            shaken = (normal[0] + noise, normal[1] + noise, normal[2] + noise)
            frame = Frame((0, 0, 0), x_axis, cross(normal, x_axis), shaken)
            back = dequantise(quantise(Shape((replace(plate, frame=frame),)), box)).extrusions[0].frame
            for there, here in ((back.normal, normal), (back.x_axis, x_axis), (back.y_axis, frame.y_axis)):
                assert there == pytest.approx(here, abs=1e-7)


def test_named_planes_face_where_their_names_say() -> None:
    axes = {  # the normal, and the axis that points to the right
        "top": ((0, 0, 1), (1, 0, 0)),
        "bottom": ((0, 0, -1), (1, 0, 0)),
        "front": ((0, -1, 0), (1, 0, 0)),
        "back": ((0, 1, 0), (-1, 0, 0)),
        "right": ((1, 0, 0), (0, 1, 0)),
        "left": ((-1, 0, 0), (0, -1, 0)),
    }
    for angles, name in PLANES.items():
        frame = dequantise(extruded(CircleAt((176, 128), 48), angles=angles)).extrusions[0].frame
        assert frame.normal == pytest.approx(axes[name][0], abs=1e-12)
        assert frame.x_axis == pytest.approx(axes[name][1], abs=1e-12)


def extruded(*commands: Command, angles: tuple[int, int, int] = (128, 128, 128)) -> Sequence:
    """A loop of these."""
    return Sequence(
        (
            Extrude(
                paths=(Path(commands),),
                angles=angles,
                origin=(128, 128, 128),
                size=96,
                distances=(160, 128),
                operation=Operation.NEW_BODY,
                extent=Extent.ONE_SIDE,
            ),
        )
    )


ANGLES = st.floats(-3.1, 3.1)


@given(st.floats(0.01, 3.1), ANGLES, ANGLES)
def test_angles_are_those_of_the_plane(theta: float, phi: float, gamma: float) -> None:
    frame = frame_of((0.0, 0.0, 0.0), theta, phi, gamma)
    assert cross(frame.x_axis, frame.y_axis) == pytest.approx(frame.normal, abs=1e-12)
    assert angles_of(frame) == pytest.approx((theta, phi, gamma), abs=1e-3)  # a normal is taken to 6 decimals


@given(SEQUENCES)
def test_whatever_is_written_makes_a_shape_of_finite_numbers_whose_loops_close(sequence: Sequence) -> None:
    for extrusion_ in dequantise(sequence).extrusions:
        for axis in (extrusion_.frame.x_axis, extrusion_.frame.y_axis, extrusion_.frame.normal):
            assert math.hypot(*axis) == pytest.approx(1)
        for loop in extrusion_.loops:
            edges = [curve for curve in loop.curves if not hasattr(curve, "center")]
            assert all(one.end == other.start for one, other in zip(edges, (*edges[1:], *edges[:1]), strict=True))
            assert all(math.isfinite(value) for arc in edges if isinstance(arc, Arc) for value in arc.middle)


@given(st.integers(1, 255), st.booleans(), st.tuples(st.integers(0, 255), st.integers(0, 255)))
def test_an_arc_comes_back_with_its_sweep_and_direction(sweep: int, left: bool, end: tuple[int, int]) -> None:
    assume(math.dist(end, (128, 128)) > 20)
    (path,) = quantise(dequantise(extruded(ArcTo(end, sweep, left), LineTo((128, 128))))).extrudes[0].paths
    arc = path.commands[0]
    assert isinstance(arc, ArcTo)
    assert (arc.sweep, arc.counter_clockwise) == (sweep, left)


@given(SEQUENCES)
def test_distances_of_one_side_have_no_second(sequence: Sequence) -> None:
    for written, made in zip(sequence.extrudes, dequantise(sequence).extrusions, strict=True):
        assert made.distances[0] == written.distances[0] / 128 - 1
        assert made.distances[1] == (written.distances[1] / 128 - 1 if written.extent is Extent.TWO_SIDES else 0)
