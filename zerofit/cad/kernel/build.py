"""A solid from a construction sequence. Only the kernel's processes import this, and what imports OpenCASCADE.

As DeepCAD builds them (Wu et al. 2021, arXiv 2105.09492; cadlib/visualize.py): a profile swept along its normal, then
added to the body, cut from it or intersected with it; new bodies are added too, so that volume is counted once.
Otherwise than there, holes are cut out of the profile, which also holds where they touch its edge or one another, and
nothing can be cut from or intersected with a body that is not there.

OpenCASCADE's operations now and then lose a body or a face and call the rest valid (8.0.1: intersecting five bars with
five others a hundredth away left out one of them). So each part is made a second time, in triangles, and the volumes
have to agree. Nor are faces joined that continue each other: ShapeUpgrade_UnifySameDomain made a quarter of a cylinder
three quarters, and changed the solid that it was given.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from typing import Any

from manifold3d import Manifold
from OCP.BRepAlgoAPI import BRepAlgoAPI_Common, BRepAlgoAPI_Cut, BRepAlgoAPI_Fuse
from OCP.BRepBuilderAPI import BRepBuilderAPI_Transform
from OCP.BRepCheck import BRepCheck_Analyzer
from OCP.BRepGProp import BRepGProp
from OCP.BRepPrimAPI import BRepPrimAPI_MakePrism
from OCP.gp import gp_Trsf, gp_Vec
from OCP.GProp import GProp_GProps

from zerofit.cad.errors import CadError
from zerofit.cad.kernel.profile import NOTHING, profile
from zerofit.cad.kernel.triangles import combined, manifold
from zerofit.cad.shape import Arc, Circle, Curve, Extent, Extrusion, Operation, Shape

REACH = 100.0
"""Largest number in a shape as OpenCASCADE gets it: its tolerance is 1e-7 whatever the size."""
OPERATORS = {
    Operation.NEW_BODY: BRepAlgoAPI_Fuse,
    Operation.JOIN: BRepAlgoAPI_Fuse,
    Operation.CUT: BRepAlgoAPI_Cut,
    Operation.INTERSECT: BRepAlgoAPI_Common,
}
AGREE = 1e-3
"""Difference of the two volumes, as a share of what was swept, that triangles may make on round faces: they make less
than half of that."""
LEFT = 1e-9
"""Volume, of that before, which is taken for none."""


@dataclass(frozen=True, eq=False)  # it is itself alone
class Body:
    """A valid solid of OpenCASCADE, or several that do not touch; a length of 1 of the shape is `unit` in it."""

    solid: Any
    unit: float
    twin: Manifold
    """The same in triangles."""


@lru_cache(maxsize=2)
def build(shape: Shape) -> Body:
    """The solid of a shape. Raises CadError where it is none, or where OpenCASCADE errs."""
    unit = REACH / _reach(shape)
    solid, twin, swept = None, Manifold(), 0.0
    for number, extrusion in enumerate(shape.extrusions, 1):
        try:
            tool = _sweep(extrusion, unit)
            swept += volume(tool)
            twin = combined(twin, manifold(tool), extrusion.operation)
            solid = _first(extrusion, tool) if solid is None else _combined(solid, tool, extrusion.operation)
        except CadError as error:
            raise CadError(f"extrusion {number}: {error}") from None
    if not BRepCheck_Analyzer(solid).IsValid():
        raise CadError("the body that comes out is not valid")
    if abs(volume(solid) - twin.volume()) > AGREE * swept:
        found = f"{volume(solid) / unit**3:.4g}, of its triangles {twin.volume() / unit**3:.4g}"
        raise CadError(f"OpenCASCADE made a wrong solid: its volume is {found}")
    return Body(solid, unit, twin)


def _combined(body: Any, tool: Any, operation: Operation) -> Any:
    made = OPERATORS[operation](body, tool)
    if not made.IsDone():
        raise CadError(f"OpenCASCADE could not {operation.name.lower()} it")
    if volume(made.Shape()) <= LEFT * volume(body):
        raise CadError("nothing is left of the body")
    return made.Shape()


def volume(solid: Any) -> float:
    """In OpenCASCADE's units; negative where it is inside out."""
    properties = GProp_GProps()
    BRepGProp.VolumeProperties_s(solid, properties)
    return float(properties.Mass())


def _reach(shape: Shape) -> float:
    if not shape.extrusions:
        raise CadError("it has no extrusion")
    numbers = list(chain.from_iterable(map(_numbers, shape.extrusions)))
    if not all(map(math.isfinite, numbers)):
        raise CadError("a number in it is not finite")
    reach = max(map(abs, numbers))
    if reach < 1e-12:  # or its cube vanishes
        raise CadError("it has no size")
    return reach


def _numbers(extrusion: Extrusion) -> Iterator[float]:
    frame = extrusion.frame
    yield from (*frame.origin, *extrusion.distances)
    for loop in extrusion.loops:
        for curve in loop.curves:
            yield from _curve_numbers(curve)


def _curve_numbers(curve: Curve) -> tuple[float, ...]:
    match curve:
        case Circle():
            return (*curve.center, curve.radius)
        case Arc():
            return (*curve.start, *curve.middle, *curve.end)
    return (*curve.start, *curve.end)


def _first(extrusion: Extrusion, tool: Any) -> Any:
    if extrusion.operation in (Operation.CUT, Operation.INTERSECT):
        raise CadError(f"there is no body yet to {extrusion.operation.name.lower()}")
    return tool


def _sweep(extrusion: Extrusion, unit: float) -> Any:
    """The solid between the two ends of an extrusion."""
    first, second = extrusion.distances
    begin = {Extent.ONE_SIDE: 0.0, Extent.SYMMETRIC: -first, Extent.TWO_SIDES: -second}[extrusion.extent]
    if abs(first - begin) * unit < NOTHING:
        raise CadError("it has no length")
    move = gp_Trsf()
    move.SetTranslation(_along(extrusion, begin * unit))
    base = BRepBuilderAPI_Transform(profile(extrusion, unit), move, True).Shape()
    solid = BRepPrimAPI_MakePrism(base, _along(extrusion, (first - begin) * unit)).Shape()
    if not BRepCheck_Analyzer(solid).IsValid() or volume(solid) <= 0:
        raise CadError("its profile sweeps out no valid solid")
    return solid


def _along(extrusion: Extrusion, distance: float) -> gp_Vec:
    return gp_Vec(*(distance * part for part in extrusion.frame.normal))
