"""Blocks on blocks. The corner of the lowest is the origin."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

from zerofit.cad.parts.drawing import extrude, rectangle
from zerofit.cad.parts.form import Form, Pick, grid
from zerofit.cad.sequence import Sequence
from zerofit.cad.shape import Operation


@dataclass(frozen=True)
class SteppedBlock(Form):
    """A block with a smaller one on it, whose corner stands at `x` and `y`."""

    kind: ClassVar[str] = "stepped block"
    description: ClassVar[str] = "a block with a smaller block on top"

    width: int
    depth: int
    height: int
    x: int
    y: int
    upper_width: int
    upper_depth: int
    upper_height: int

    @classmethod
    def draw(cls, pick: Pick) -> Self:
        """The upper block stands 8 or more from the lower one's edges."""
        width, depth, height = pick(grid(48, 96, 16)), pick(grid(48, 80, 16)), pick(grid(8, 32))
        x, y = pick(grid(8, 24)), pick(grid(8, 24))
        upper = pick(grid(16, width - 8 - x, 16)), pick(grid(16, depth - 8 - y, 16)), pick(grid(16, 40))
        return cls(width, depth, height, x, y, *upper)

    @property
    def sequence(self) -> Sequence:
        """The lower block; then the upper one on it."""
        upper, at = rectangle(self.upper_width, self.upper_depth), (self.x, self.y, self.height)
        return Sequence(
            (
                extrude(rectangle(self.width, self.depth), by=self.height),
                extrude(upper, by=self.upper_height, at=at, operation=Operation.JOIN),
            )
        )

    @property
    def volume(self) -> float:
        """Of both blocks."""
        upper = self.upper_width * self.upper_depth * self.upper_height
        return self.width * self.depth * self.height + upper

    @property
    def captions(self) -> tuple[str, ...]:
        """Block by block."""
        width, depth, height, x, y, *upper = self.parameters
        w, d, h = upper
        return (
            f"A block {width} by {depth}, {height} high, with a block {w} by {d}, {h} high, on top at x {x}, y {y}.",
            f"Stepped block. Lower: width {width}, depth {depth}, height {height}. Upper: width {w}, depth {d}, height "
            f"{h}, corner x {x} y {y}.",
            f"Put a block of width {w}, depth {d} and height {h} on a block of width {width}, depth {depth} and height "
            f"{height}, its corner at x {x} and y {y}.",
        )
