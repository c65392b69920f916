"""A solid's surface in triangles, and operations on solids of triangles (Manifold), which always come out right."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from manifold3d import Error, Manifold, Mesh64, OpType
from numpy.typing import NDArray
from OCP.BRep import BRep_Tool
from OCP.BRepGProp import BRepGProp_Face
from OCP.BRepMesh import BRepMesh_IncrementalMesh
from OCP.IMeshTools import IMeshTools_MeshAlgoType_Delabella, IMeshTools_Parameters
from OCP.TopAbs import TopAbs_FACE, TopAbs_REVERSED, TopAbs_SOLID
from OCP.TopExp import TopExp_Explorer
from OCP.TopLoc import TopLoc_Location
from OCP.TopoDS import TopoDS

from zerofit.cad.errors import CadError
from zerofit.cad.shape import Operation

Array = NDArray[np.float64]
SAG = 0.1
"""How far a triangle's edge may lie from the surface, of a shape that is 100 large."""
TURN = 0.05
"""Radians by which the surface may turn along it: a round face loses 4e-4 of what it encloses."""
SAME = 1e-6
"""Distance of nodes that are one, where faces meet."""
OPERATIONS = {
    Operation.NEW_BODY: OpType.Add,
    Operation.JOIN: OpType.Add,
    Operation.CUT: OpType.Subtract,
    Operation.INTERSECT: OpType.Intersect,
}


@dataclass(frozen=True)
class Patch:
    """A face: its nodes, and the triangles between them, counter-clockwise from outside."""

    face: BRepGProp_Face
    nodes: Array
    """[n, 3]"""
    parameters: Array
    """[n, 2]: where the nodes lie on the surface."""
    triangles: NDArray[np.int64]
    """[m, 3]"""

    def corners(self) -> Array:
        """[m, 3, 3]: the triangles."""
        return self.nodes[self.triangles]


def patches(solid: Any) -> list[Patch]:
    """All faces of a solid, cut into triangles that meet in their corners."""
    BRepMesh_IncrementalMesh(solid, _fineness())
    return [_patch(TopoDS.Face(face)) for face in parts(solid, TopAbs_FACE)]


def manifold(solid: Any) -> Manifold:
    """A solid, or several that do not overlap, in triangles. Raises CadError where they leave it open."""
    return Manifold.batch_boolean([_closed(patches(part)) for part in parts(solid, TopAbs_SOLID)], OpType.Add)


def combined(body: Manifold, tool: Manifold, operation: Operation) -> Manifold:
    """What an operation makes of two solids."""
    return Manifold.batch_boolean([body, tool], OPERATIONS[operation])


def parts(solid: Any, kind: Any) -> list[Any]:
    """All faces, or whatever else, of a solid."""
    explorer, found = TopExp_Explorer(solid, kind), []
    while explorer.More():
        found.append(explorer.Current())
        explorer.Next()
    return found


def _fineness() -> IMeshTools_Parameters:
    chosen = IMeshTools_Parameters()
    chosen.Deflection, chosen.Angle = SAG, TURN
    chosen.MeshAlgo = IMeshTools_MeshAlgoType_Delabella  # a plate with 36 holes took 2.3 s by default, and takes 0.2
    return chosen


def _closed(faces: list[Patch]) -> Manifold:
    starts = np.cumsum([0] + [len(patch.nodes) for patch in faces])
    triangles = np.concatenate([patch.triangles + start for patch, start in zip(faces, starts, strict=False)])
    mesh = Mesh64(np.concatenate([patch.nodes for patch in faces]), triangles.astype(np.uint64), tolerance=SAME)
    mesh.merge()
    made = Manifold(mesh)
    if made.status() != Error.NoError:
        raise CadError(f"its triangles do not close ({made.status().name})")
    return made


def _patch(face: Any) -> Patch:
    location = TopLoc_Location()
    mesh = BRep_Tool.Triangulation_s(face, location)
    if mesh is None:
        raise CadError("OpenCASCADE could not cut a face into triangles")
    numbers = range(1, mesh.NbNodes() + 1)
    placed = [mesh.Node(number).Transformed(location.Transformation()) for number in numbers]
    nodes = np.array([(node.X(), node.Y(), node.Z()) for node in placed])
    parameters = np.array([(place.X(), place.Y()) for place in map(mesh.UVNode, numbers)])
    triangles = np.array([mesh.Triangle(number).Get() for number in range(1, mesh.NbTriangles() + 1)]) - 1
    if face.Orientation() == TopAbs_REVERSED:
        triangles = triangles[:, ::-1]
    return Patch(BRepGProp_Face(face), nodes, parameters, triangles)
