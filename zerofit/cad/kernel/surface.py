"""Points on the surface of a solid."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from OCP.gp import gp_Pnt, gp_Vec

from zerofit.cad.kernel.build import Body
from zerofit.cad.kernel.triangles import Array, Patch, patches


def at(patch: Patch, parameters: Array) -> tuple[Array, Array]:
    """[n, 3] and [n, 3]: the points of the surface at [n, 2] parameters, and its outward unit normals there."""
    found = np.empty((len(parameters), 2, 3))
    point, normal = gp_Pnt(), gp_Vec()
    for row, (u, v) in zip(found, parameters.tolist(), strict=True):
        patch.face.Normal(u, v, point, normal)
        row[:] = (point.X(), point.Y(), point.Z()), (normal.X(), normal.Y(), normal.Z())
    found[:, 1] /= np.linalg.norm(found[:, 1], axis=1, keepdims=True)
    return found[:, 0], found[:, 1]


def points(body: Body, count: int, seed: int) -> NDArray[np.float32]:
    """[count, 6]: points and normals. A triangle is drawn by its area, a place in it evenly (Osada et al. 2002, 4.1).

    The place is one in the surface's parameters, so that points of a round face lie on it and not on its triangles.
    """
    draw = np.random.Generator(np.random.Philox(seed))
    faces = patches(body.solid)
    corners = np.concatenate([patch.corners() for patch in faces])
    areas = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
    chosen = draw.choice(len(areas), count, p=areas / areas.sum())
    root, along = np.sqrt(draw.random(count)), draw.random(count)
    weights = np.stack([1 - root, root * (1 - along), root * along], axis=1)
    bounds = np.cumsum([0] + [len(patch.triangles) for patch in faces])
    found = np.empty((count, 6), np.float32)
    for first, last, patch in zip(bounds, bounds[1:], faces, strict=False):
        here = (chosen >= first) & (chosen < last)
        places = patch.parameters[patch.triangles[chosen[here] - first]]
        found[here] = np.hstack(at(patch, np.einsum("nc,ncd->nd", weights[here], places)))
    found[:, :3] /= body.unit
    return found
