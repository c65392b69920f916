"""DeepCAD's JSON documents (Wu et al. 2021, arXiv 2105.09492), which Omni-CAD's are too, to construction sequences.

What the documents say is not always so:
- an arc's `normal` may point the wrong way: its middle is found from its angles and reference vector, without it;
- `is_outer` is true of holes too: it is not read, since of a profile's loops the largest is the outside;
- curves may be listed against the direction of their loop: they are turned to follow one another;
- an extrusion may have no profiles: it is left out;
- one of several profiles that makes a new body makes it of the first, and joins the others to it;
- a symmetric one goes its whole distance both ways.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from reprlib import repr as brief
from typing import Any, TypeVar

from pydantic import ValidationError

from zerofit.cad import document as said
from zerofit.cad.errors import CadError
from zerofit.cad.loops import in_order, reach
from zerofit.cad.planes import dot
from zerofit.cad.shape import (
    Arc,
    Box,
    Circle,
    Curve,
    Extent,
    Extrusion,
    Frame,
    Line,
    Loop,
    Operation,
    Point,
    Shape,
    Vector,
)

SKEW = 1e-6
"""By how much axes may miss being orthonormal."""
OPERATIONS = {
    "NewBodyFeatureOperation": Operation.NEW_BODY,
    "JoinFeatureOperation": Operation.JOIN,
    "CutFeatureOperation": Operation.CUT,
    "IntersectFeatureOperation": Operation.INTERSECT,
}
EXTENTS = {
    "OneSideFeatureExtentType": Extent.ONE_SIDE,
    "SymmetricFeatureExtentType": Extent.SYMMETRIC,
    "TwoSidesFeatureExtentType": Extent.TWO_SIDES,
}
PieceT = TypeVar("PieceT", bound=said.Piece)


def read(document: Any) -> tuple[Shape, Box | None]:
    """The part that a parsed JSON document makes, in the document's metres, and the bounding box that it states.

    Loops come in DeepCAD's order: leftmost point first, outside first. Raises CadError where the document is no such
    part: a value is missing, of the wrong kind, not finite or out of range, a loop is open, axes are skew.
    """
    whole = _checked(said.Document, document, "document")
    extrusions = tuple(
        extrusion
        for step in whole.sequence
        if step.type == "ExtrudeFeature"
        for extrusion in _extrusions(whole.entities, step.entity)
    )
    if not extrusions:
        raise CadError("document: extrudes nothing")
    box = whole.properties.bounding_box if whole.properties else None
    return Shape(extrusions), None if box is None else _box(box)


def _extrusions(entities: Mapping[str, Any], name: str) -> Iterator[Extrusion]:
    """One a profile."""
    where = f"extrusion {brief(name)}"
    feature = _checked(said.Extrude, _entry(entities, name, "entities"), where)
    operation, extent = OPERATIONS[feature.operation], EXTENTS[feature.extent_type]
    sides = [feature.extent_one]
    if extent is Extent.TWO_SIDES:
        if feature.extent_two is None:
            raise CadError(f"{where}: goes to two sides and has no extent_two")
        sides.append(feature.extent_two)
    if any(side.taper_angle.value != 0 for side in sides):
        raise CadError(f"{where}: has a taper_angle; walls are to be straight")
    one, two, *_ = (*(side.distance.value for side in sides), 0.0)
    for number, use in enumerate(feature.profiles):
        frame, loops = _profile(entities, use)
        joins = number > 0 and operation is Operation.NEW_BODY
        yield Extrusion(frame, loops, (one, two), Operation.JOIN if joins else operation, extent)


def _profile(entities: Mapping[str, Any], use: said.Use) -> tuple[Frame, tuple[Loop, ...]]:
    sketch_name = f"sketch {brief(use.sketch)}"
    where = f"profile {brief(use.profile)} of {sketch_name}"
    sketch = _checked(said.Sketch, _entry(entities, use.sketch, "entities"), sketch_name)
    profile = _checked(said.Profile, _entry(sketch.profiles, use.profile, sketch_name), where)
    try:
        frame = _frame(sketch.transform)
        loops = in_order([[_curve(curve) for curve in loop.profile_curves] for loop in profile.loops])
    except CadError as error:
        raise CadError(f"{where}: {error}") from None
    if reach(loops) < said.SMALLEST:
        raise CadError(f"{where}: has no size")
    return frame, loops


def _curve(curve: said.AnyCurve) -> Curve:
    match curve:
        case said.LineCurve():
            return Line(_flat(curve.start_point), _flat(curve.end_point))
        case said.CircleCurve():
            return Circle(_flat(curve.center_point), curve.radius)
        case said.ArcCurve():
            return Arc(_flat(curve.start_point), _middle(curve), _flat(curve.end_point))


def _middle(arc: said.ArcCurve) -> Point:
    """centre + radius * R((start + end) / 2) reference, R counter-clockwise in the sketch's plane."""
    angle = (arc.start_angle + arc.end_angle) / 2
    cosine, sine = math.cos(angle), math.sin(angle)
    (x, y), (center_x, center_y) = _flat(arc.reference_vector), _flat(arc.center_point)
    return center_x + arc.radius * (cosine * x - sine * y), center_y + arc.radius * (sine * x + cosine * y)


def _frame(transform: said.Transform) -> Frame:
    x, y, z = (_solid(axis) for axis in (transform.x_axis, transform.y_axis, transform.z_axis))
    cross = (x[1] * y[2] - x[2] * y[1], x[2] * y[0] - x[0] * y[2], x[0] * y[1] - x[1] * y[0])
    if max(abs(dot(x, x) - 1), abs(dot(y, y) - 1), abs(dot(x, y)), math.dist(cross, z)) > SKEW:
        raise CadError("transform: axes are to be orthonormal, and z_axis x_axis cross y_axis")
    return Frame(_solid(transform.origin), x, y, z)


def _box(stated: said.BoundingBox) -> Box:
    low, high = _solid(stated.min_point), _solid(stated.max_point)
    if any(least > most for least, most in zip(low, high, strict=True)):
        raise CadError("document: bounding_box has a min_point above its max_point")
    if math.dist(low, high) < said.SMALLEST:
        raise CadError("document: bounding_box has no size")
    return low, high


def _flat(place: said.Place) -> Point:
    return place.x, place.y


def _solid(place: said.Place) -> Vector:
    return place.x, place.y, place.z


def _entry(entries: Mapping[str, Any], name: str, where: str) -> Any:
    if name not in entries:
        raise CadError(f"{where}: has no {brief(name)}")
    return entries[name]


def _checked(kind: type[PieceT], value: Any, where: str) -> PieceT:
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        place = ".".join(map(str, first["loc"])) or "all of it"
        reason = "is to be an object" if first["type"] == "model_type" else first["msg"]
        raise CadError(f"{where}: {place}: {reason}") from None
