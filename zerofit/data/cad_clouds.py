"""Point clouds of CAD models on a drive: a file of float32 [rows, points, 6], positions and unit normals.

All lie in the frame of the command text (cad/quantise.py: within the cube from -1 to 1).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zerofit.cad.kernel import Invalid, Kernel
from zerofit.cad.shape import Shape
from zerofit.data import sample_cache
from zerofit.data.cad_points import Points, cloud_of, seed_of
from zerofit.data.cad_rows import CadRow
from zerofit.data.cad_solids import Making
from zerofit.data.cad_table import Table
from zerofit.plan.slots import CHANNELS

FORMAT = 1
"""Of the file, and of how clouds are made."""
FILE = "clouds.f32"


@dataclass(frozen=True)
class Clouds:
    """The clouds of a table."""

    directory: Path
    bad: dict[int, str]
    """Why a row has none, by its number."""
    short: tuple[str, ...]
    """Models whose file has fewer points than asked for: `id (points)`."""


def make_clouds(table: Table, count: int) -> Clouds:
    """The clouds of `count` points of all rows, from before, or made now. Raises UserError."""
    decides = {"kind": "cad clouds", "format": FORMAT, "rows": table.key, "points": count}

    def make(directory: Path) -> dict[str, Any]:
        maker, bad = _Maker(count), dict[int, str]()
        with (directory / FILE).open("wb") as file:
            for number, cloud in enumerate(Making("clouds", maker)(table.rows)):
                if isinstance(cloud, Invalid):
                    bad[number] = cloud.reason
                    cloud = np.zeros((count, CHANNELS), dtype=np.float32)
                file.write(cloud.tobytes())
        return {"bad": sorted(bad.items()), "short": sorted(maker.short)}

    directory, facts = sample_cache.kept(sample_cache.default_root(os.environ), decides, make)
    return Clouds(directory, dict(facts["bad"]), tuple(facts["short"]))


def open_clouds(directory: Path, count: int) -> NDArray[np.float32]:
    """float32 [rows, count, 6], mapped and read-only."""
    return np.memmap(directory / FILE, dtype=np.float32, mode="r").reshape(-1, count, CHANNELS)


class _Maker:
    def __init__(self, count: int) -> None:
        self.count = count
        self.short: list[str] = []

    def has_files(self, row: CadRow) -> bool:
        return row.cloud is not None

    def from_files(self, row: CadRow) -> Points:
        assert row.cloud is not None
        assert row.box is not None, "rows with a cloud have the box by which it is placed"
        found, points = cloud_of(row.cloud, row.box, self.count, seed_of(row.id))
        if points < self.count:
            self.short.append(f"{row.id} ({points:,})")
        return found

    def from_solid(self, kernel: Kernel, row: CadRow, shape: Shape) -> Points | Invalid:
        return kernel.points(shape, self.count, seed_of(row.id))
