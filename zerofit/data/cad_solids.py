"""What is made of CAD models once, clouds or images: from files where a row names some, else from its solid."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, closing
from typing import Generic, Protocol, TypeVar

from zerofit.cad import text
from zerofit.cad.errors import CadError
from zerofit.cad.kernel import Invalid, Kernel
from zerofit.cad.quantise import dequantise
from zerofit.cad.shape import Shape
from zerofit.data.cad_rows import CadRow
from zerofit.data.cad_table import PATIENCE, Rows
from zerofit.prepare.progress import RowsProgress

MOST = 32
"""Processes of OpenCASCADE at most, each of which takes a few hundred MiB."""
T = TypeVar("T", covariant=True)


class Maker(Protocol[T]):
    """Makes something of a row."""

    def has_files(self, row: CadRow) -> bool:
        """Whether the row names files for it."""

    def from_files(self, row: CadRow) -> T:
        """What those hold. Raises CadError."""

    def from_solid(self, kernel: Kernel, row: CadRow, shape: Shape) -> T | Invalid:
        """What the kernel makes of the shape."""


class Making(Generic[T]):
    """All rows, in their order; OpenCASCADE is asked, by as many processes as there are cores, where a row needs it."""

    def __init__(self, name: str, maker: Maker[T]) -> None:
        self.name, self.maker = name, maker

    def __call__(self, rows: Rows) -> Iterator[T | Invalid]:
        """What comes of each row; Invalid with the reason. Raises UserError without OpenCASCADE where it is needed."""
        with ExitStack() as stack:
            bar = stack.enter_context(closing(RowsProgress(name=self.name, total=len(rows), delay=PATIENCE)))
            if all(self.maker.has_files(row) for row in rows):
                found: Iterator[T | Invalid] = map(self._of_files, rows)
            else:
                kernel = stack.enter_context(Kernel(workers=min(MOST, len(os.sched_getaffinity(0)))))
                found = kernel.map(lambda row: self._of(kernel, row), rows)
            for one in found:
                bar.add()
                yield one

    def _of(self, kernel: Kernel, row: CadRow) -> T | Invalid:
        if self.maker.has_files(row):
            return self._of_files(row)
        return self.maker.from_solid(kernel, row, dequantise(text.read(row.commands)))

    def _of_files(self, row: CadRow) -> T | Invalid:
        try:
            return self.maker.from_files(row)
        except CadError as error:
            return Invalid(str(error))
