"""DeepCAD's vectors: there and back, and rows out of place."""

from __future__ import annotations

from pathlib import Path as File

import numpy as np
import pytest
from cad_examples import SEQUENCES
from hypothesis import given
from hypothesis import strategies as st

from zerofit.cad.errors import CadError
from zerofit.cad.sequence import CircleAt, Extrude, LineTo, Path, Sequence
from zerofit.cad.shape import Extent, Operation
from zerofit.cad.vectors import from_vector, read_file, to_vector

PLATE = Sequence(
    (
        Extrude(
            paths=(Path((LineTo((223, 128)), LineTo((128, 128)))), Path((CircleAt((176, 177), 24),))),
            angles=(1, 2, 3),
            origin=(4, 5, 6),
            size=7,
            distances=(8, 9),
            operation=Operation.CUT,
            extent=Extent.TWO_SIDES,
        ),
    )
)
NONE = -1


def test_rows_are_deepcads() -> None:
    assert to_vector(PLATE).tolist() == [
        [4] + [NONE] * 16,
        [0, 223, 128] + [NONE] * 14,
        [0, 128, 128] + [NONE] * 14,
        [4] + [NONE] * 16,
        [2, 176, 177, NONE, NONE, 24] + [NONE] * 11,
        [5] + [NONE] * 5 + [1, 2, 3, 4, 5, 6, 7, 8, 9, 2, 2],
        [3] + [NONE] * 16,
    ]


@given(SEQUENCES, st.integers(0, 5))
def test_a_vector_is_its_sequence_padded_or_not(sequence: Sequence, padding: int) -> None:
    vector = to_vector(sequence)
    assert vector.dtype == np.int64
    assert from_vector(np.concatenate([vector, np.repeat(vector[-1:], padding, axis=0)])) == sequence


def rows(*commands: int) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    """Of these commands, every value 0."""
    vector = np.zeros((len(commands), 17), dtype=np.int64)
    vector[:, 0] = commands
    return vector


@pytest.mark.parametrize(
    ("commands", "reason"),
    [
        ((4, 0, 5), "no row that ends it"),
        ((), "no row that ends it"),
        ((3,), "rows from 0 on"),
        ((4, 0, 5, 4, 5, 3), "rows from 3 on"),
        ((4, 0, 5, 4, 2, 3), "rows from 3 on"),
        ((4, 2, 0, 5, 3), "rows from 0 on"),
        ((0, 5, 3), "rows from 0 on"),
        ((4, 0, 6, 3), "row 2: 6 is no command"),
    ],
)
def test_commands_out_of_place_are_named(commands: tuple[int, ...], reason: str) -> None:
    with pytest.raises(CadError, match=reason):
        from_vector(rows(*commands))


@pytest.mark.parametrize(("row", "column", "value"), [(1, 1, -1), (1, 2, 256), (5, 15, 4), (5, 16, 3), (5, 6, 1000)])
def test_values_out_of_range_are_named(row: int, column: int, value: int) -> None:
    vector = to_vector(PLATE)
    vector[row, column] = value
    with pytest.raises(CadError, match=f"row {row}: column {column} is {value}, not 0 to"):
        from_vector(vector)


@pytest.mark.parametrize("wrong", [np.zeros((3, 16), dtype=np.int64), np.zeros((3, 17)), np.zeros(17, dtype=np.int64)])
def test_other_arrays_are_refused(wrong: np.ndarray[tuple[int, ...], np.dtype[np.generic]]) -> None:
    with pytest.raises(CadError, match=r"no integer array \[n, 17\]"):
        from_vector(wrong)


def test_files_are_read_and_what_is_none_is_refused(tmp_path: File) -> None:
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "good.h5", "w") as file:
        file["vec"] = to_vector(PLATE)
    assert from_vector(read_file(tmp_path / "good.h5")) == PLATE
    with h5py.File(tmp_path / "empty.h5", "w"):
        pass
    (tmp_path / "junk.h5").write_bytes(b"junk")
    for name in ("empty.h5", "junk.h5", "absent.h5"):
        with pytest.raises(CadError, match="data set 'vec'"):
            read_file(tmp_path / name)
