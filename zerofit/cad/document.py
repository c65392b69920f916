"""What is read of DeepCAD's JSON documents, and how its values are to be. What a document has besides is not read."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag

FARTHEST = 1e6
"""Metres. What is larger is no part but a fault."""
SMALLEST = 1e-9
"""Metres: a radius, a profile or a box below it has no size."""

Number = Annotated[float, Field(strict=True, allow_inf_nan=False, ge=-FARTHEST, le=FARTHEST)]
Radius = Annotated[float, Field(strict=True, allow_inf_nan=False, gt=SMALLEST, le=FARTHEST)]


class Piece(BaseModel):
    """A piece of a document."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class Place(Piece):
    """A point or a vector; of those in a sketch z is 0."""

    x: Number
    y: Number
    z: Number


class LineCurve(Piece):
    """A straight edge."""

    type: Literal["Line3D"]
    start_point: Place
    end_point: Place


class CircleCurve(Piece):
    """A whole circle."""

    type: Literal["Circle3D"]
    center_point: Place
    radius: Radius


class ArcCurve(Piece):
    """An arc of a circle: angles in radians from the reference vector."""

    type: Literal["Arc3D"]
    start_point: Place
    end_point: Place
    center_point: Place
    radius: Radius
    start_angle: Number
    end_angle: Number
    reference_vector: Place


AnyCurve = LineCurve | CircleCurve | ArcCurve


def _type(raw: Any) -> str | None:
    kind = raw.get("type") if isinstance(raw, dict) else None
    return kind if isinstance(kind, str) and kind in ("Line3D", "Circle3D", "Arc3D") else None


ByType = Discriminator(
    _type,  # a function, since pydantic would show what else stands there, however long
    custom_error_type="curve",
    custom_error_message="type of a curve is to be Line3D, Circle3D or Arc3D",
)


class LoopOfCurves(Piece):
    """Curves that close."""

    profile_curves: list[
        Annotated[
            Annotated[LineCurve, Tag("Line3D")]
            | Annotated[CircleCurve, Tag("Circle3D")]
            | Annotated[ArcCurve, Tag("Arc3D")],
            ByType,
        ]
    ] = Field(min_length=1)


class Profile(Piece):
    """A region of a sketch: an outside and its holes."""

    loops: list[LoopOfCurves] = Field(min_length=1)


class Transform(Piece):
    """Where a sketch lies."""

    origin: Place
    x_axis: Place
    y_axis: Place
    z_axis: Place


class Sketch(Piece):
    """A sketch; of its profiles those alone are looked into that an extrusion uses."""

    type: Literal["Sketch"]
    transform: Transform
    profiles: dict[str, Any]


class Value(Piece):
    """A parameter."""

    value: Number


class Side(Piece):
    """How far an extrusion goes; walls are straight."""

    distance: Value
    taper_angle: Value = Value(value=0.0)


class Start(Piece):
    """Where an extrusion starts: at its sketch."""

    type: Literal["ProfilePlaneStartDefinition"]


class Use(Piece):
    """A profile that is extruded."""

    sketch: str
    profile: str


class Extrude(Piece):
    """An extrusion of profiles; none where its sketch had no region."""

    type: Literal["ExtrudeFeature"]
    profiles: list[Use]
    operation: Literal[
        "NewBodyFeatureOperation", "JoinFeatureOperation", "CutFeatureOperation", "IntersectFeatureOperation"
    ]
    start_extent: Start
    extent_type: Literal["OneSideFeatureExtentType", "SymmetricFeatureExtentType", "TwoSidesFeatureExtentType"]
    extent_one: Side
    extent_two: Side | None = None


class Step(Piece):
    """An item of the order in which a part is made."""

    type: str
    entity: str


class BoundingBox(Piece):
    """The box that the document states."""

    min_point: Place
    max_point: Place


class Properties(Piece):
    """What the document states of the whole part."""

    bounding_box: BoundingBox | None = None


class Document(Piece):
    """A whole part; of its entities those alone are looked into that its sequence uses."""

    entities: dict[str, Any]
    sequence: list[Step]
    properties: Properties | None = None
