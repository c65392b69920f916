"""Pictures of a solid, by rays (Embree): no display, no graphics card, the same picture every time."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from embreex.mesh_construction import TriangleMesh
from embreex.rtcore_scene import EmbreeScene
from numpy.typing import NDArray

from zerofit.cad.kernel.build import Body
from zerofit.cad.kernel.surface import at
from zerofit.cad.kernel.triangles import patches

Array = NDArray[np.floating]
FROM = np.array([(1, -1, 1), (-1, 1, 1), (-1, -1, -1), (1, 1, -1)]) / 3**0.5
"""Where the eye is, for each view: the corners of a tetrahedron."""
UP = np.array([0.0, 0.0, 1.0])
LIGHT = np.array([0.3, 0.5, 0.8]) / 0.98**0.5
"""Where it comes from: right, up, towards the eye."""
AMBIENT = 0.35
COLOR = np.array([0.62, 0.72, 0.86], np.float32)
INK, PAPER = 0.15, 1.0
MARGIN = 1.04
FINE = 2
"""Rays along each side of a pixel."""
CREASE = 0.95
"""Cosine of the angle between faces from which on their edge is drawn."""
STEP = 0.02
"""Difference of depth, of the part's diagonal, that is drawn as an edge between faces."""


@dataclass(frozen=True)
class _Seen:
    """What rays met first, [rows, columns]."""

    face: NDArray[np.int64]
    """-1 where they met nothing."""
    normal: Array
    """[rows, columns, 3]"""
    depth: Array


def render(body: Body, size: int, view: int) -> NDArray[np.uint8]:
    """[size, size, 3]: the part in parallel projection, as wide as its box's diagonal in every view."""
    eye = FROM[view]
    right = np.cross(UP, eye) / np.linalg.norm(np.cross(UP, eye))
    axes = np.stack([right, np.cross(eye, right), eye])
    seen = _look(_model(body), axes, size * FINE)
    light = AMBIENT + (1 - AMBIENT) * np.clip(seen.normal @ (LIGHT @ axes), 0, 1)
    color = np.where((seen.face < 0)[..., None], PAPER, light[..., None] * COLOR)
    color[_edges(seen)] = INK
    return np.rint(color.reshape(size, FINE, size, FINE, 3).mean(axis=(1, 3)) * 255).astype(np.uint8)


class _Model:
    """The triangles of a body as Embree wants them, moved to the middle, with a diagonal of 1."""

    def __init__(self, body: Body) -> None:
        faces = patches(body.solid)
        corners = np.concatenate([patch.corners() for patch in faces])
        low, high = corners.min(axis=(0, 1)), corners.max(axis=(0, 1))
        placed = (corners - (low + high) / 2) / np.linalg.norm(high - low)
        self.scene = EmbreeScene(robust=True)  # no ray slips through between two triangles
        TriangleMesh(self.scene, placed.astype(np.float32))
        self.faces = np.repeat(np.arange(len(faces)), [len(patch.triangles) for patch in faces])
        self.normals = np.concatenate([at(patch, patch.parameters)[1][patch.triangles] for patch in faces])


_model = lru_cache(maxsize=1)(_Model)  # four views of a part come one after another


def _look(model: _Model, axes: NDArray[np.float64], side: int) -> _Seen:
    """Through side x side rays that go against the last of three axes: right, up, and to the eye."""
    right, up, eye = axes
    steps = (((np.arange(side) + 0.5) / side - 0.5) * MARGIN)[:, None]
    origins = (2 * eye - steps[:, None] * up + steps * right).reshape(-1, 3).astype(np.float32)
    hit = model.scene.run(origins, np.broadcast_to(-eye, origins.shape).astype(np.float32), output=True)
    triangle = hit["primID"]
    weights = np.stack([1 - hit["u"] - hit["v"], hit["u"], hit["v"]], axis=1)
    normal = np.einsum("nc,ncd->nd", weights, model.normals[triangle])
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    face = np.where(triangle < 0, -1, model.faces[triangle])
    return _Seen(face.reshape(side, side), normal.reshape(side, side, 3), hit["tfar"].reshape(side, side))


def _edges(seen: _Seen) -> NDArray[np.bool_]:
    """Where another face begins to the right or below, at an angle or in another depth, or where the part ends."""
    ink = np.zeros(seen.face.shape, bool)
    for here, there in ((np.s_[:, :-1], np.s_[:, 1:]), (np.s_[:-1], np.s_[1:])):
        creased = np.einsum("hwd,hwd->hw", seen.normal[here], seen.normal[there]) < CREASE
        apart = np.abs(seen.depth[here] - seen.depth[there]) > STEP
        ink[here] |= (seen.face[here] != seen.face[there]) & (creased | apart)
    return ink
