"""How far apart two clouds of points are."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree  # type: ignore[import-untyped]

from zerofit.cad.errors import CadError


def chamfer(a: NDArray[Any], b: NDArray[Any]) -> float:
    """Chamfer distance of two clouds, [n, 3 or more] and [m, 3 or more]: columns after x, y and z are not read.

    The mean, over the points of each, of the squared distance to the nearest point of the other, both added up (Fan et
    al. 2017, arXiv 1612.00603, section 3.2, with means as DeepCAD's evaluation takes them, arXiv 2105.09492). In
    squared units of the points. Raises CadError where a cloud is empty or a number in it is not finite.
    """
    here, there = _places(a), _places(b)
    to, back = cKDTree(there).query(here)[0], cKDTree(here).query(there)[0]
    return float(np.mean(to**2) + np.mean(back**2))


def _places(cloud: NDArray[Any]) -> NDArray[np.float64]:
    assert cloud.ndim == 2, cloud.shape
    assert cloud.shape[1] >= 3, cloud.shape
    places = cloud[:, :3].astype(np.float64)
    if not len(places) or not np.isfinite(places).all():
        raise CadError(f"a cloud of {len(places)} points has no distance: it is empty, or a number is not finite")
    return places
