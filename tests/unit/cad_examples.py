"""Construction sequences that are drawn, and small documents like DeepCAD's."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from zerofit.cad.sequence import ArcTo, CircleAt, Extrude, LineTo, Path, Sequence
from zerofit.cad.shape import Extent, Operation

LEVELS = st.integers(0, 255)
PLACES = st.tuples(LEVELS, LEVELS)
LINES = st.builds(LineTo, PLACES)
ARCS = st.builds(ArcTo, PLACES, LEVELS, st.booleans())
CIRCLES = st.builds(CircleAt, PLACES, LEVELS)
EDGES = st.lists(LINES | ARCS, min_size=1, max_size=5)
PATHS = st.builds(Path, EDGES.map(tuple) | CIRCLES.map(lambda circle: (circle,)))
PLANES = st.sampled_from([(128, 128, 128), (255, 128, 255), (192, 64, 192), (192, 255, 192)])
EXTRUDES = st.builds(
    Extrude,
    paths=st.lists(PATHS, min_size=1, max_size=3).map(tuple),
    angles=PLANES | st.tuples(LEVELS, LEVELS, LEVELS),
    origin=st.tuples(LEVELS, LEVELS, LEVELS),
    size=LEVELS,
    distances=st.tuples(LEVELS, LEVELS | st.just(128)),
    operation=st.sampled_from(Operation),
    extent=st.sampled_from(Extent),
)
SEQUENCES = st.builds(Sequence, st.lists(EXTRUDES, min_size=1, max_size=3).map(tuple))

Raw = dict[str, Any]


def place(x: float, y: float, z: float = 0.0) -> Raw:
    return {"x": x, "y": y, "z": z}


def line(start: tuple[float, float], end: tuple[float, float]) -> Raw:
    return {"type": "Line3D", "start_point": place(*start), "end_point": place(*end)}


def circle(x: float, y: float, radius: float) -> Raw:
    return {"type": "Circle3D", "center_point": place(x, y), "radius": radius, "normal": place(0, 0, 1)}


def polygon(*corners: tuple[float, float]) -> list[Raw]:
    return [line(one, other) for one, other in zip(corners, (*corners[1:], corners[0]), strict=True)]


def square(low: float, high: float) -> list[Raw]:
    """Counter-clockwise from its lower left corner."""
    return polygon((low, low), (high, low), (high, high), (low, high))


def extrusion(*profiles: str, sketch: str = "S", distance: float = 1.0, **fields: Any) -> Raw:
    """Of profiles of that sketch."""
    return {
        "type": "ExtrudeFeature",
        "profiles": [{"sketch": sketch, "profile": profile} for profile in profiles],
        "operation": "NewBodyFeatureOperation",
        "start_extent": {"type": "ProfilePlaneStartDefinition"},
        "extent_type": "OneSideFeatureExtentType",
        "extent_one": {"distance": {"value": distance}, "taper_angle": {"value": 0.0}},
        "extent_two": {"distance": {"value": 0.0}},
    } | fields


def document(*extrusions: Raw, box: tuple[float, float] | None = (0.0, 1.0), **profiles: list[list[Raw]]) -> Raw:
    """Extrusions of a sketch "S" on the top plane that has these profiles, each a list of loops; a cube as its box."""
    sketch = {
        "type": "Sketch",
        "transform": {
            "origin": place(0, 0),
            "x_axis": place(1, 0),
            "y_axis": place(0, 1),
            "z_axis": place(0, 0, 1),
        },
        "profiles": {
            name: {"loops": [{"is_outer": True, "profile_curves": curves} for curves in loops]}
            for name, loops in profiles.items()
        },
    }
    names = [f"E{number}" for number in range(len(extrusions))]
    return {
        "entities": {"S": sketch, **dict(zip(names, extrusions, strict=True))},
        "sequence": [
            {"index": 0, "type": "Sketch", "entity": "S"},
            *({"index": 1, "type": "ExtrudeFeature", "entity": name} for name in names),
        ],
        "properties": {}
        if box is None
        else {"bounding_box": {"min_point": place(*[box[0]] * 3), "max_point": place(*[box[1]] * 3)}},
    }
