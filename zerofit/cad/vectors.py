"""Construction sequences as DeepCAD's vectors (Wu et al. 2021, arXiv 2105.09492): a row a command.

A row is [command, x, y, sweep, counter-clockwise, radius, theta, phi, gamma, px, py, pz, size, distance, second
distance, operation, extent], with -1 where a command has no such value. Commands: 0 line, 1 arc, 2 circle, 3 end of
the sequence, 4 start of a loop, 5 extrusion of the loops before it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path as File
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zerofit.cad.errors import CadError
from zerofit.cad.sequence import ArcTo, CircleAt, Command, Extrude, LineTo, Path, Sequence
from zerofit.cad.shape import Extent, Operation
from zerofit.config.errors import UserError

WIDTH = 17
LINE, ARC, CIRCLE, END, LOOP, EXTRUDE = range(6)
COLUMNS = {LINE: (1, 2), ARC: (1, 2, 3, 4), CIRCLE: (1, 2, 5), END: (), LOOP: (), EXTRUDE: tuple(range(6, WIDTH))}
"""Where a command has its values."""
LARGEST = {4: 1, 15: max(Operation), 16: max(Extent)}
"""Of a column's values; 255 elsewhere."""
GROUPS = re.compile("(?:(?:4(?:2|[01]+))+5)*")
"""Commands in place: groups of loops, each a circle or lines and arcs, with their extrusion."""

Row = tuple[int, list[int]]
"""A command and its values."""


def to_vector(sequence: Sequence) -> NDArray[np.int64]:
    """int64 [n, 17], not padded, the end's row last: as the .h5 files that come with DeepCAD's documents."""
    rows = list(_rows(sequence))
    vector = np.full((len(rows), WIDTH), -1, dtype=np.int64)
    for at, (command, values) in zip(vector, rows, strict=True):
        at[[0, *COLUMNS[command]]] = [command, *values]
    return vector


def from_vector(vector: NDArray[Any]) -> Sequence:
    """The sequence of an integer array [n, 17]. Rows after the first end are padding and are not read.

    Raises CadError, naming the row, where a value is out of range or a command is out of place.
    """
    if vector.ndim != 2 or vector.shape[1] != WIDTH or not np.issubdtype(vector.dtype, np.integer):
        raise CadError(f"vector: {vector.dtype} {list(vector.shape)} is no integer array [n, {WIDTH}]")
    rows = list(_read_rows(vector.tolist()))
    found = GROUPS.match("".join(str(command) for command, _ in rows))
    assert found is not None  # it matches nothing too
    if found.end() < len(rows) or not rows:
        raise CadError(f"vector: rows from {found.end()} on are no loops of curves with their extrusion")
    return _assembled(rows)


def read_file(file: File) -> NDArray[np.int64]:
    """The data set `vec` of a DeepCAD .h5 file. Raises CadError where it has none, UserError without h5py."""
    try:
        import h5py
    except ImportError:
        raise UserError(f"{file}: .h5 files need h5py: pip install 'zerofit[cad]'") from None
    try:
        with h5py.File(file) as opened:
            return np.asarray(opened["vec"], dtype=np.int64)
    except (KeyError, OSError, TypeError, ValueError) as error:
        raise CadError(f"no .h5 file with a data set 'vec' of integers: {' '.join(str(error).split())}") from None


def _rows(sequence: Sequence) -> Iterator[Row]:
    for extrude in sequence.extrudes:
        for path in extrude.paths:
            yield LOOP, []
            yield from map(_row, path.commands)
        yield (
            EXTRUDE,
            [
                *extrude.angles,
                *extrude.origin,
                extrude.size,
                *extrude.distances,
                extrude.operation,
                extrude.extent,
            ],
        )
    yield END, []


def _row(command: Command) -> Row:
    match command:
        case LineTo(end=end):
            return LINE, [*end]
        case ArcTo(end=end):
            return ARC, [*end, command.sweep, int(command.counter_clockwise)]
        case CircleAt(center=center):
            return CIRCLE, [*center, command.radius]


def _read_rows(rows: list[list[int]]) -> Iterator[Row]:
    """Those before the end."""
    for number, row in enumerate(rows):
        if row[0] == END:
            return
        if row[0] not in COLUMNS:
            raise CadError(f"vector: row {number}: {row[0]} is no command, which are 0 to 5")
        for column in COLUMNS[row[0]]:
            largest = LARGEST.get(column, 255)
            if not 0 <= row[column] <= largest:
                raise CadError(f"vector: row {number}: column {column} is {row[column]}, not 0 to {largest}")
        yield row[0], [row[column] for column in COLUMNS[row[0]]]
    raise CadError("vector: has no row that ends it")


def _assembled(rows: list[Row]) -> Sequence:
    extrudes: list[Extrude] = []
    loops: list[list[Command]] = []
    for command, values in rows:
        if command == LOOP:
            loops.append([])
        elif command == EXTRUDE:
            extrudes.append(_extrude(tuple(Path(tuple(loop)) for loop in loops), values))
            loops = []
        else:
            loops[-1].append(_command(command, values))
    return Sequence(tuple(extrudes))


def _command(command: int, values: list[int]) -> Command:
    place = values[0], values[1]
    if command == LINE:
        return LineTo(place)
    if command == CIRCLE:
        return CircleAt(place, values[2])
    return ArcTo(place, values[2], counter_clockwise=values[3] == 1)


def _extrude(paths: tuple[Path, ...], values: list[int]) -> Extrude:
    theta, phi, gamma, px, py, pz, size, one, two, operation, extent = values
    return Extrude(paths, (theta, phi, gamma), (px, py, pz), size, (one, two), Operation(operation), Extent(extent))
