"""DeepCAD's documents: what they say that is not so, and documents that say nothing sensible."""

from __future__ import annotations

import math
from typing import Any

import pytest
from cad_examples import Raw, circle, document, extrusion, line, place, polygon, square
from hypothesis import given
from hypothesis import strategies as st

from zerofit.cad import deepcad, quantise
from zerofit.cad.errors import CadError
from zerofit.cad.shape import Arc, Circle, Extent, Line, Operation, Point


def half_disc(normal: float, *, backwards: bool) -> Raw:
    """The upper half of the unit circle; which of its ends is called its start, angles do not tell."""
    ends = [place(1, 0), place(-1, 0)]
    return {
        "type": "Arc3D",
        "start_point": ends[backwards],
        "end_point": ends[not backwards],
        "center_point": place(0, 0),
        "radius": 1.0,
        "normal": place(0, 0, normal),
        "start_angle": 0.0,
        "end_angle": math.pi,
        "reference_vector": place(1, 0),
    }


@pytest.mark.parametrize("normal", [1.0, -1.0])
@pytest.mark.parametrize("backwards", [False, True])
def test_an_arc_goes_over_the_middle_of_its_angles_whatever_its_normal(normal: float, backwards: bool) -> None:
    profile = [[half_disc(normal, backwards=backwards), line((-1, 0), (1, 0))]]
    shape, _ = deepcad.read(document(extrusion("P"), P=profile))
    (loop,) = shape.extrusions[0].loops
    (arc,) = [curve for curve in loop.curves if isinstance(curve, Arc)]
    assert arc.middle == pytest.approx((0, 1))
    (path,) = quantise.quantise(shape, ((-1, 0, 0), (1, 1, 1))).extrudes[0].paths
    sweeps = [(command.sweep, command.counter_clockwise) for command in path.commands if hasattr(command, "sweep")]
    assert sweeps == [(128, True)]


def test_a_symmetric_extrusion_keeps_its_whole_distance() -> None:
    feature = extrusion("P", distance=0.5, extent_type="SymmetricFeatureExtentType")
    shape, _ = deepcad.read(document(feature, P=[square(0, 1)]))
    assert shape.extrusions[0].extent is Extent.SYMMETRIC
    assert shape.extrusions[0].distances == (0.5, 0.0)


def test_the_second_distance_is_of_two_sides_alone() -> None:
    second = {"distance": {"value": 0.25}}
    two = extrusion("P", extent_type="TwoSidesFeatureExtentType", extent_two=second)
    shape, _ = deepcad.read(document(two, extrusion("P", extent_two=second), P=[square(0, 1)]))
    assert [one.distances for one in shape.extrusions] == [(1.0, 0.25), (1.0, 0.0)]


@pytest.mark.parametrize("hole_first", [False, True])
def test_the_outside_comes_first_whatever_the_document_calls_it(hole_first: bool) -> None:
    loops = [square(0, 1), [circle(0.5, 0.5, 0.25)]]
    shape, _ = deepcad.read(document(extrusion("P"), P=loops[::-1] if hole_first else loops))
    outside, hole = shape.extrusions[0].loops
    assert [type(curve) for curve in outside.curves] == [Line] * 4
    assert hole.curves == (Circle((0.5, 0.5), 0.25),)


def test_extrusions_without_profiles_are_left_out() -> None:
    shape, _ = deepcad.read(document(extrusion(), extrusion("P", distance=2.0), P=[square(0, 1)]))
    assert [one.distances[0] for one in shape.extrusions] == [2.0]
    with pytest.raises(CadError, match="extrudes nothing"):
        deepcad.read(document(extrusion(), P=[square(0, 1)]))


@pytest.mark.parametrize(
    ("said", "made"), [("NewBody", [Operation.NEW_BODY, Operation.JOIN]), ("Cut", [Operation.CUT, Operation.CUT])]
)
def test_profiles_after_a_new_body_join_it(said: str, made: list[Operation]) -> None:
    feature = extrusion("P", "Q", operation=f"{said}FeatureOperation")
    shape, _ = deepcad.read(document(feature, P=[square(0, 1)], Q=[square(1, 2)]))
    assert [one.operation for one in shape.extrusions] == made


CORNERS = ((0.0, 0.0), (2.0, -1.0), (3.0, 1.0), (1.0, 2.0))


@given(
    st.permutations(range(4)).map(lambda order: order[0]),
    st.booleans(),
    st.lists(st.booleans(), min_size=4, max_size=4),
)
def test_a_loop_is_one_loop_however_its_curves_are_listed(first: int, clockwise: bool, turned: list[bool]) -> None:
    corners = [*CORNERS[first:], *CORNERS[:first]][:: -1 if clockwise else 1]
    curves = [
        line(*(xy(edge, end) for end in (("end", "start") if turn else ("start", "end"))))
        for edge, turn in zip(polygon(*corners), turned, strict=True)
    ]
    shape, _ = deepcad.read(document(extrusion("P"), P=[curves]))
    assert [curve.start for curve in shape.extrusions[0].loops[0].curves if isinstance(curve, Line)] == list(CORNERS)


def xy(edge: Raw, end: str) -> Point:
    return edge[f"{end}_point"]["x"], edge[f"{end}_point"]["y"]


def test_the_stated_box_may_be_missing() -> None:
    assert deepcad.read(document(extrusion("P"), P=[square(0, 1)]))[1] == ((0, 0, 0), (1, 1, 1))
    assert deepcad.read(document(extrusion("P"), box=None, P=[square(0, 1)]))[1] is None


REFUSED: dict[str, tuple[Raw, str]] = {
    "open": (document(extrusion("P"), P=[square(0, 1)[:3]]), "profile 'P' of sketch 'S': curve 2 .* is open"),
    "mixed": (document(extrusion("P"), P=[[*square(0, 1), circle(0, 0, 1)]]), "a circle among the 5 curves"),
    "point": (document(extrusion("P"), P=[[line((1, 1), (1, 1))]]), "has no size"),
    "no loops": (document(extrusion("P"), P=[]), "loops: List should have at least 1 item"),
    "no curves": (document(extrusion("P"), P=[[]]), "loops.0.profile_curves: List"),
    "no object": (document(extrusion("P"), P=[[1]]), "is to be Line3D"),
    "no place": (
        document(extrusion("P"), P=[[{**circle(0, 0, 1), "center_point": [0, 0]}]]),
        "loops.0.profile_curves.0.Circle3D.center_point: is to be an object",
    ),
    "spline": (document(extrusion("P"), P=[[{"type": "Spline"}]]), "is to be Line3D, Circle3D or Arc3D"),
    "no profile": (document(extrusion("Q"), P=[square(0, 1)]), "sketch 'S': has no 'Q'"),
    "no sketch": (document(extrusion("P", sketch="T"), P=[square(0, 1)]), "entities: has no 'T'"),
    "tapered": (
        document(
            extrusion("P", extent_one={"distance": {"value": 1.0}, "taper_angle": {"value": 0.1}}), P=[square(0, 1)]
        ),
        "taper_angle",
    ),
    "no box": (document(extrusion("P"), box=(1.0, 1.0), P=[square(0, 1)]), "bounding_box has no size"),
    "no such box": (document(extrusion("P"), box=(1.0, 0.0), P=[square(0, 1)]), "min_point above its max_point"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_document_that_is_no_part_is_refused_with_the_reason(name: str) -> None:
    raw, reason = REFUSED[name]
    with pytest.raises(CadError, match=reason):
        deepcad.read(raw)


def test_skew_axes_are_refused() -> None:
    raw = document(extrusion("P"), P=[square(0, 1)])
    raw["entities"]["S"]["transform"]["z_axis"] = place(0, 0, -1)
    with pytest.raises(CadError, match="orthonormal"):
        deepcad.read(raw)


def nested(depth: int) -> list[Any]:
    inside: list[Any] = []
    for _ in range(depth):
        inside = [inside]
    return inside


ODD = (
    st.sampled_from([None, True, 10**400, -1, 0, 1e308, 1e-320, math.nan, math.inf, "", "\ud800", "a\nb", [], {}])
    | st.builds(nested, st.just(20_000))
    | st.builds(lambda: {"type": nested(20_000)})
    | st.text().map(lambda text: text * 1000)
    | st.recursive(
        st.none() | st.floats() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
    )
)
PART = document(
    extrusion("P", "Q", extent_type="TwoSidesFeatureExtentType"),
    P=[square(0, 1), [circle(0.5, 0.5, 0.25)]],
    Q=[[half_disc(1.0, backwards=False), line((-1, 0), (1, 0))]],
)


def places(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Of everything in it."""
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [at, *(place for key, inner in entries for place in places(inner, (*at, key)))]


def changed(value: Any, at: tuple[Any, ...], new: Any) -> Any:
    """A copy with `new` there; without it, where new is absent."""
    if not at:
        return new
    copy = value.copy()
    if at[1:] or new is not ABSENT:
        copy[at[0]] = changed(value[at[0]], at[1:], new)
    else:
        del copy[at[0]]
    return copy


ABSENT = object()


@given(st.sampled_from(places(PART)[1:]), ODD | st.just(ABSENT))
def test_a_malformed_document_raises_cad_error_alone(at: tuple[Any, ...], new: Any) -> None:
    judge(changed(PART, at, new))


@given(ODD)
def test_what_is_no_document_raises_cad_error_alone(raw: Any) -> None:
    judge(raw)


def judge(raw: Any) -> None:
    reason = "a reason of one line"
    try:
        shape, box = deepcad.read(raw)
        if box is not None:
            quantise.dequantise(quantise.quantise(shape, box))
    except CadError as error:
        reason = str(error)
    assert "\n" not in reason
    assert 10 < len(reason) < 300
