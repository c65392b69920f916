"""Numbers of a solid, in the units of its shape."""

from __future__ import annotations

from typing import Any

from OCP.Bnd import Bnd_Box
from OCP.BRepBndLib import BRepBndLib
from OCP.BRepGProp import BRepGProp
from OCP.GProp import GProp_GProps
from OCP.TopAbs import TopAbs_FACE, TopAbs_SOLID

from zerofit.cad.kernel.build import Body, volume
from zerofit.cad.kernel.triangles import parts


def measure(body: Body) -> dict[str, Any]:
    """The fields of a `Solid`."""
    surface = GProp_GProps()
    BRepGProp.SurfaceProperties_s(body.solid, surface)
    box = Bnd_Box()
    BRepBndLib.AddOptimal_s(body.solid, box, False, False)  # of the surfaces themselves, without tolerances
    box.SetGap(0.0)
    return {
        "volume": volume(body.solid) / body.unit**3,
        "area": surface.Mass() / body.unit**2,
        "box": [_corner(point, body.unit) for point in (box.CornerMin(), box.CornerMax())],
        "faces": len(parts(body.solid, TopAbs_FACE)),
        "bodies": len(parts(body.solid, TopAbs_SOLID)),
    }


def iou(a: Body, b: Body) -> float:
    """Volume of the intersection over volume of the union, of the two in triangles."""
    other = b.twin.scale([a.unit / b.unit] * 3)
    both = (a.twin ^ other).volume()
    return min(1.0, both / (a.twin.volume() + other.volume() - both))


def _corner(point: Any, unit: float) -> tuple[float, float, float]:
    return (point.X() / unit, point.Y() / unit, point.Z() / unit)
