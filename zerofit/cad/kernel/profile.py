"""The faces that a sketch encloses, in OpenCASCADE, placed in space."""

from __future__ import annotations

import math
from typing import Any

from OCP.BRep import BRep_Tool
from OCP.BRepAlgoAPI import BRepAlgoAPI_Cut
from OCP.BRepBuilderAPI import (
    BRepBuilderAPI_MakeEdge,
    BRepBuilderAPI_MakeFace,
    BRepBuilderAPI_MakeVertex,
    BRepBuilderAPI_MakeWire,
)
from OCP.BRepCheck import BRepCheck_Analyzer
from OCP.BRepGProp import BRepGProp
from OCP.collections import List_TopoDS_Shape
from OCP.GC import GC_MakeArcOfCircle
from OCP.gp import gp_Ax2, gp_Ax3, gp_Circ, gp_Dir, gp_Pln, gp_Pnt
from OCP.GProp import GProp_GProps

from zerofit.cad.errors import CadError
from zerofit.cad.shape import Arc, Circle, Curve, Extrusion, Frame, Line, Loop, Point

NOTHING = 1e-5
"""A length that is taken for none, of a shape that is 100 large."""
GAP = 1e-2
"""By how much a curve may start away from where the one before it ends; the curve is moved there."""


def profile(extrusion: Extrusion, unit: float) -> Any:
    """The face, or the faces, of an extrusion: its largest loop less the others. Raises CadError where none is left."""
    sketch = _Sketch(extrusion.frame, unit)
    faces = []
    for number, loop in enumerate(extrusion.loops, 1):
        try:
            faces.append(sketch.face(loop))
        except CadError as error:
            raise CadError(f"loop {number}: {error}") from None
    if not faces:
        raise CadError("its profile has no loop")
    outside, *holes = sorted(faces, key=_area, reverse=True)
    if holes:
        outside = _cut(outside, holes)
    if _area(outside) < NOTHING:
        raise CadError("its holes leave nothing of its profile")
    return outside


def _cut(outside: Any, holes: list[Any]) -> Any:
    """What is left of a face. All at once: one after another, 576 holes took 9 s instead of 0.06."""
    cut, faces, tools = BRepAlgoAPI_Cut(), List_TopoDS_Shape(), List_TopoDS_Shape()
    faces.Append(outside)
    for hole in holes:
        tools.Append(hole)
    cut.SetArguments(faces)
    cut.SetTools(tools)
    cut.Build()
    if not cut.IsDone():
        raise CadError("OpenCASCADE could not cut its holes out of its profile")
    return cut.Shape()


def _area(face: Any) -> float:
    properties = GProp_GProps()
    BRepGProp.SurfaceProperties_s(face, properties)
    return float(properties.Mass())


class _Sketch:
    """A plane in space, in which loops become faces. A length of 1 is `unit` in OpenCASCADE."""

    def __init__(self, frame: Frame, unit: float) -> None:
        self._frame, self._unit = frame, unit
        self._normal, self._x = gp_Dir(*frame.normal), gp_Dir(*frame.x_axis)
        self._plane = gp_Pln(gp_Ax3(self._place((0.0, 0.0)), self._normal, self._x))

    def face(self, loop: Loop) -> Any:
        """What a loop encloses. Raises CadError where it encloses nothing, is open or crosses itself."""
        wire = BRepBuilderAPI_MakeWire()
        for edge in self._edges(loop):
            wire.Add(edge)
            if not wire.IsDone():
                raise CadError("its curves do not join")
        face = BRepBuilderAPI_MakeFace(self._plane, wire.Wire(), True).Face()
        if not BRepCheck_Analyzer(face).IsValid():
            raise CadError("it crosses or touches itself")
        if _area(face) < NOTHING:
            raise CadError("it encloses nothing")
        return face

    def _edges(self, loop: Loop) -> list[Any]:
        match loop.curves:
            case (Circle() as circle,):
                return [self._circle(circle)]
        curves = [curve for curve in loop.curves if not self._is_point(curve)]
        if len(curves) < 2:
            raise CadError("it encloses nothing")
        vertices = [
            self._vertex(before, curve) for before, curve in zip(curves[-1:] + curves[:-1], curves, strict=True)
        ]
        ends = vertices[1:] + vertices[:1]
        return [self._edge(curve, *vertex) for curve, *vertex in zip(curves, vertices, ends, strict=True)]

    def _is_point(self, curve: Curve) -> bool:
        """Whether it is a line between two points that have become one, as 8 bits make them."""
        return isinstance(curve, Line) and math.dist(curve.start, curve.end) * self._unit < NOTHING

    def _vertex(self, before: Curve, curve: Curve) -> Any:
        """Where a curve starts."""
        if isinstance(before, Circle) or isinstance(curve, Circle):
            raise CadError("a circle is a loop of its own")
        if (gap := math.dist(before.end, curve.start) * self._unit) > GAP:
            raise CadError(f"it is open by {gap / self._unit:.2g}")
        return BRepBuilderAPI_MakeVertex(self._place(curve.start)).Vertex()

    def _edge(self, curve: Curve, start: Any, end: Any) -> Any:
        made = BRepBuilderAPI_MakeEdge(start, end)
        if isinstance(curve, Arc) and not _is_straight(curve, NOTHING / self._unit):
            points = (BRep_Tool.Pnt_s(start), self._place(curve.middle), BRep_Tool.Pnt_s(end))
            circle = GC_MakeArcOfCircle(*points)
            if not circle.IsDone():
                raise CadError("an arc ends where it starts")
            made = BRepBuilderAPI_MakeEdge(circle.Value(), start, end)
        if not made.IsDone():
            raise CadError("OpenCASCADE could not make an edge of a curve")
        return made.Edge()

    def _circle(self, circle: Circle) -> Any:
        if circle.radius * self._unit < NOTHING:
            raise CadError("its circle has no radius")
        axes = gp_Ax2(self._place(circle.center), self._normal, self._x)
        return BRepBuilderAPI_MakeEdge(gp_Circ(axes, circle.radius * self._unit)).Edge()

    def _place(self, point: Point) -> gp_Pnt:
        frame = self._frame
        axes = zip(frame.origin, frame.x_axis, frame.y_axis, strict=True)
        return gp_Pnt(*(self._unit * (origin + point[0] * x + point[1] * y) for origin, x, y in axes))


def _is_straight(arc: Arc, tolerance: float) -> bool:
    """Whether the middle lies on the line between the ends, and between them."""
    across = (arc.end[0] - arc.start[0], arc.end[1] - arc.start[1])
    to = (arc.middle[0] - arc.start[0], arc.middle[1] - arc.start[1])
    length = math.hypot(*across)
    if length < tolerance:
        return False
    height = abs(across[0] * to[1] - across[1] * to[0]) / length
    along = (across[0] * to[0] + across[1] * to[1]) / length
    return height < tolerance and 0 <= along <= length
