"""A solid as the content of a file, in the units of its shape."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import numpy as np
from OCP.BRepBuilderAPI import BRepBuilderAPI_Transform
from OCP.gp import gp_Pnt, gp_Trsf
from OCP.IFSelect import IFSelect_RetDone
from OCP.STEPControl import STEPControl_AsIs, STEPControl_Writer
from PIL import Image

from zerofit.cad.errors import CadError
from zerofit.cad.kernel.build import Body

PIXELS = 512
STL = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])
"""A triangle of a binary STL (3D Systems 1989)."""


def content(body: Body, suffix: str) -> bytes:
    """What a file with this suffix has in it."""
    return {".step": _step, ".stl": _stl, ".png": _png}[suffix](body)


def _step(body: Body) -> bytes:
    writer, stream = STEPControl_Writer(), BytesIO()
    writer.Transfer(_in_its_units(body), STEPControl_AsIs)
    if writer.WriteStream(stream) != IFSelect_RetDone:
        raise CadError("OpenCASCADE could not write it as STEP")
    return stream.getvalue()


def _in_its_units(body: Body) -> Any:
    scale = gp_Trsf()
    scale.SetScale(gp_Pnt(), 1 / body.unit)
    return BRepBuilderAPI_Transform(body.solid, scale, True).Shape()


def _stl(body: Body) -> bytes:
    mesh = body.twin.to_mesh64()  # closed, however thin its faces are
    corners = mesh.vert_properties[:, :3][mesh.tri_verts]
    across = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    rows = np.zeros(len(corners), STL)
    rows["corners"] = corners / body.unit
    rows["normal"] = across / np.maximum(np.linalg.norm(across, axis=1, keepdims=True), np.finfo(np.float64).tiny)
    return b"zerofit".ljust(80) + len(rows).to_bytes(4, "little") + rows.tobytes()


def _png(body: Body) -> bytes:
    from zerofit.cad.kernel.picture import render  # Embree is not there on every machine

    stream = BytesIO()
    Image.fromarray(render(body, PIXELS, view=0)).save(stream, "PNG")
    return stream.getvalue()
