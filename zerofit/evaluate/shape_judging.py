"""What a command text is worth: parsed, made a solid of, and laid beside the true one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zerofit.cad import text
from zerofit.cad.accuracy import command_accuracy, parameter_accuracy
from zerofit.cad.distance import chamfer
from zerofit.cad.errors import CadError
from zerofit.cad.kernel import Invalid, Kernel
from zerofit.cad.quantise import dequantise
from zerofit.cad.sequence import Sequence as Commands
from zerofit.cad.shape import Shape
from zerofit.data.cad_views import png
from zerofit.evaluate.shape_request import Asked
from zerofit.measure.shapes import ShapeRow

POINTS = 2048
"""Of a cloud, for the Chamfer distance."""
SEED = 0
"""Clouds of both are drawn alike: of two shapes that are the same the distance is 0."""
PIXELS = 256
"""Of a picture's side."""


@dataclass(frozen=True)
class Written:
    """What a model wrote of a CAD model."""

    mix: str
    """What it was told."""
    text: str
    tokens: int
    stopped: bool


@dataclass(frozen=True)
class Judged:
    """A CAD model, and all that was written of it."""

    model: Asked
    written: Sequence[Written]
    pictured: bool


def judge(kernel: Kernel, items: Sequence[Judged], progress: Callable[[int], None]) -> Iterator[ShapeRow]:
    """A row for each that was written, in their order, by all processes of the kernel.

    `progress` is called with the number of CAD models that are done.
    """
    for rows in kernel.map(lambda item: _Truth(kernel, item).rows(), items, progress):
        yield from rows


class _Truth:
    """The true shape; what OpenCASCADE makes of it is asked for once."""

    def __init__(self, kernel: Kernel, item: Judged) -> None:
        self.kernel, self.item = kernel, item
        self.commands = text.read(item.model.truth)
        self.shape = dequantise(self.commands)
        self.cloud: NDArray[np.float32] | Invalid | None = None

    def rows(self) -> list[ShapeRow]:
        """Of all that was written."""
        picture = _picture(self.kernel, self.shape) if self.item.pictured else None
        return [self._row(one, picture) for one in self.item.written]

    def _row(self, written: Written, picture: bytes | None) -> ShapeRow:
        row: dict[str, Any] = {
            "id": self.item.model.id,
            "mix": written.mix,
            "caption": self.item.model.caption,
            "truth": self.item.model.truth,
            "prediction": written.text,
            "tokens": written.tokens,
            "stopped": written.stopped,
            "truth_png": picture,
        }
        return ShapeRow(**{**NOTHING, **row, **self._verdict(written)})

    def _verdict(self, written: Written) -> dict[str, Any]:
        try:
            commands = text.read(written.text)
        except CadError as error:
            return {"reason": str(error)}
        right = {
            "parsed": True,
            "command_accuracy": command_accuracy(self.commands, commands),
            "parameter_accuracy": parameter_accuracy(self.commands, commands),
        }
        return {**right, **self._solid(commands)}

    def _solid(self, commands: Commands) -> dict[str, Any]:
        shape = dequantise(commands)
        solid = self.kernel.measure(shape)
        if isinstance(solid, Invalid):
            return {"reason": solid.reason}
        picture = _picture(self.kernel, shape) if self.item.pictured else None
        return {"valid": True, "prediction_png": picture, **self._beside(shape)}

    def _beside(self, shape: Shape) -> dict[str, Any]:
        """Distances from the true shape; the reason where there is none."""
        if self.cloud is None:
            self.cloud = self.kernel.points(self.shape, POINTS, SEED)
        if isinstance(self.cloud, Invalid):
            return {"reason": f"the true shape: {self.cloud.reason}"}
        cloud = self.kernel.points(shape, POINTS, SEED)
        overlap = self.kernel.iou(shape, self.shape)
        why = next((one.reason for one in (cloud, overlap) if isinstance(one, Invalid)), None)
        return {
            "reason": why,
            "chamfer": None if isinstance(cloud, Invalid) else chamfer(self.cloud, cloud),
            "iou": None if isinstance(overlap, Invalid) else overlap,
        }


NOTHING: dict[str, Any] = {
    "parsed": False,
    "valid": False,
    "reason": None,
    "command_accuracy": None,
    "parameter_accuracy": None,
    "chamfer": None,
    "iou": None,
    "prediction_png": None,
}
"""Of a text of which nothing is known."""


def _picture(kernel: Kernel, shape: Shape) -> bytes | None:
    """A PNG; null where there is none to make."""
    pixels = kernel.render(shape, PIXELS, 0)
    return None if isinstance(pixels, Invalid) else png(pixels)
