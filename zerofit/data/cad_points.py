"""Points as files have them: checked, placed in the frame of a command text, and as many as are asked for."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from zerofit.cad.errors import CadError
from zerofit.cad.quantise import CUBE
from zerofit.cad.shape import Box
from zerofit.data.cad_rows import Cloud, one_line
from zerofit.plan.slots import CHANNELS

Points = NDArray[np.float32]


def cloud_of(cloud: Cloud, box: Box, count: int, seed: int) -> tuple[Points, int]:
    """float32 [count, 6], placed so that its bounding box is `box`, and how many points the file has.

    Raises CadError where there are none, one is not finite, or they are no points.
    """
    found = _checked(_read(cloud), Path(cloud.path).name)
    return _resampled(_placed(found, box), count, seed), len(found)


def cloud_at(path: Path, count: int, *, fit: bool) -> tuple[Points, int]:
    """float32 [count, 6], where the file has them, and how many points the file has.

    To `fit`, they are scaled about the origin, as DeepCAD scales parts, so that none lies outside the cube that a part
    fits. Raises CadError as `cloud_of` does, and where they are not in the frame of a command text.
    """
    found = _checked(_read(Cloud(str(path), None)), path.name)
    farthest = float(np.abs(found[:, :3]).max())
    if fit and farthest > 0.0:
        found[:, :3] *= CUBE / farthest
    elif farthest > 1.0:
        raise CadError(
            f"{path.name} has coordinates up to {farthest:.4g}, and those of parts are within {CUBE} of the origin: "
            "scale it, or let --fit do it"
        )
    return _resampled(found, count, 0), len(found)


def seed_of(id: str) -> int:
    """What a model's points are drawn with: the same in each run."""
    return xxhash.xxh32_intdigest(id.encode())


def _read(cloud: Cloud) -> Any:
    """[n, 3 or 6], of what type the file has."""
    if cloud.row is not None:
        points, normals = _many(cloud.path)
        return points[cloud.row] if normals is None else _joined(points[cloud.row], normals[cloud.row])
    try:
        if cloud.path.endswith(".xyz"):
            return np.loadtxt(cloud.path, ndmin=2)
        held = np.load(cloud.path, allow_pickle=False)
        if isinstance(held, np.ndarray):
            return held
        with held:
            return _joined(held["points"], held["normals"]) if "normals" in held.files else held["points"]
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise CadError(f"{Path(cloud.path).name} is no cloud of points: {one_line(error)}") from None


@lru_cache(maxsize=1)
def _many(path: str) -> tuple[NDArray[Any], NDArray[Any] | None]:
    """The clouds of a file of many, whole."""
    try:
        with np.load(path, allow_pickle=False) as held:
            return held["points"], held["normals"] if "normals" in held.files else None
    except (OSError, ValueError, KeyError) as error:
        raise CadError(f"{Path(path).name} cannot be read: {one_line(error)}") from None


def _joined(points: NDArray[Any], normals: NDArray[Any]) -> NDArray[Any]:
    if points.shape != normals.shape:
        raise CadError(f"its cloud has points {list(points.shape)} and normals {list(normals.shape)}")
    return np.concatenate([points, normals.astype(points.dtype)], axis=-1)


def _checked(found: Any, name: str) -> NDArray[np.float64]:
    """float64 [n, 6]."""
    if found.dtype.kind not in "fiu" or found.ndim != 2 or found.shape[1] not in (3, CHANNELS):
        raise CadError(f"{name} holds {found.dtype} {list(found.shape)}, and a cloud is numbers [n, 3] or [n, 6]")
    if not len(found):
        raise CadError(f"{name} holds no points")
    broken = np.flatnonzero(~np.isfinite(found).all(axis=1))
    if len(broken):
        raise CadError(
            f"{name}: {len(broken):,} of {len(found):,} points are not finite, the first is number {broken[0]}"
        )
    whole = np.zeros((len(found), CHANNELS))
    whole[:, : found.shape[1]] = found
    return whole


def _placed(found: NDArray[np.float64], box: Box) -> NDArray[np.float64]:
    """Moved and scaled so that the middle and the longest side of its bounding box are those of `box`."""
    low, high = found[:, :3].min(axis=0), found[:, :3].max(axis=0)
    least, most = np.array(box[0]), np.array(box[1])
    side = (high - low).max()
    if side == 0.0:
        raise CadError("all points of its cloud are at one place")
    scale = (most - least).max() / side
    positions = (found[:, :3] - (low + high) / 2) * scale + (least + most) / 2
    return np.concatenate([positions, found[:, 3:]], axis=1)


def _resampled(found: NDArray[np.float64], count: int, seed: int) -> Points:
    """`count` of them, or all of them and some again."""
    random = np.random.default_rng(seed)
    if len(found) >= count:
        which = np.sort(random.permutation(len(found))[:count])
    else:
        which = np.concatenate([np.arange(len(found)), random.integers(0, len(found), count - len(found))])
    return found[which].astype(np.float32)
