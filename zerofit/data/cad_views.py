"""Images of CAD models on a drive: an Arrow file with the PNGs of each row, all of one size."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from zerofit.cad.errors import CadError
from zerofit.cad.kernel import Invalid, Kernel
from zerofit.cad.shape import Shape
from zerofit.data import sample_cache
from zerofit.data.cad_rows import CadRow, one_line
from zerofit.data.cad_solids import Making
from zerofit.data.cad_table import Table
from zerofit.data.decode import decode, square
from zerofit.data.samples import Mapped, Writer

FORMAT = 1
"""Of the file, and of how images are made."""
FILE = "views.arrow"
SCHEMA = pa.schema([pa.field("images", pa.list_(pa.large_binary()))])
Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Views:
    """The images of a table."""

    directory: Path
    bad: dict[int, str]
    """Why a row has none, by its number."""


def make_views(table: Table, size: int, views: int) -> Views:
    """`views` images of size x size of each row, from before, or made now. Raises UserError."""
    decides = {"kind": "cad views", "format": FORMAT, "rows": table.key, "size": size, "views": views}

    def make(directory: Path) -> dict[str, Any]:
        bad = dict[int, str]()
        writer = Writer(directory / FILE, SCHEMA)
        for number, images in enumerate(Making("images", _Maker(size, views))(table.rows)):
            if isinstance(images, Invalid):
                bad[number] = images.reason
                images = []
            writer.add({"images": images})
        writer.close()
        return {"bad": sorted(bad.items())}

    directory, facts = sample_cache.kept(sample_cache.default_root(os.environ), decides, make)
    return Views(directory, dict(facts["bad"]))


class Images(Mapped[list[bytes]]):
    """The PNGs of each row."""

    def _of(self, row: dict[str, Any]) -> list[bytes]:
        return [one.as_py() for one in row["images"]]

    def pixels(self, row: int, sides: Sequence[int]) -> list[Pixels]:
        """uint8 [size, size, 3], of each of these sides, or of what stands for it where a row has fewer images."""
        images = self[row]
        return [np.asarray(Image.open(BytesIO(images[number]))) for number in standing_for(sides, len(images))]

    def counts(self) -> NDArray[np.int64]:
        """[n]: images of each row."""
        return np.concatenate([batch.column("images").value_lengths().to_numpy() for batch in self._batches])


def standing_for(sides: Sequence[int], images: int) -> list[int]:
    """The image that is shown of each side: another one for each, as long as there are any that no side has.

    They come in their own order, as sides do.
    """
    found = list[int]()
    for side in sides:
        nearest = [(side + more) % images for more in range(images)]
        found.append(next((one for one in nearest if one not in found), nearest[0]))
    return sorted(found)


def open_views(directory: Path) -> Images:
    """The images of a table, mapped."""
    return Images(directory / FILE)


class _Maker:
    def __init__(self, size: int, views: int) -> None:
        self.size, self.views = size, views

    def has_files(self, row: CadRow) -> bool:
        return bool(row.images)

    def from_files(self, row: CadRow) -> list[bytes]:
        """Of more files than are wanted those that are evenly spread in the order of their names."""
        count = min(self.views, len(row.images))
        files = [Path(row.images[place * len(row.images) // count]) for place in range(count)]
        return [png(picture(file, self.size)) for file in files]

    def from_solid(self, kernel: Kernel, row: CadRow, shape: Shape) -> list[bytes] | Invalid:
        del row
        images = []
        for view in range(self.views):
            pixels = kernel.render(shape, self.size, view)
            if isinstance(pixels, Invalid):
                return pixels
            images.append(png(pixels))
        return images


def picture(path: Path, size: int) -> Pixels:
    """uint8 [size, size, 3], of a file: its middle square. Raises CadError."""
    try:
        return square(decode(path.read_bytes()), size).permute(1, 2, 0).numpy()
    except Exception as error:  # broken bytes make a decoder raise anything
        reason = "of no known format" if isinstance(error, UnidentifiedImageError) else one_line(error)
        raise CadError(f"{path.name} is no readable image ({reason})") from None


def png(pixels: Pixels) -> bytes:
    """The bytes of a PNG file."""
    file = BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(file, format="PNG")
    return file.getvalue()
