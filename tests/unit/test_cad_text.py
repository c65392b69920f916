"""The command text: exact, readable, and errors that say where."""

from __future__ import annotations

import pytest
from cad_examples import SEQUENCES
from hypothesis import given

from zerofit.cad import text
from zerofit.cad.errors import CadError
from zerofit.cad.sequence import ArcTo, CircleAt, Extrude, LineTo, Path, Sequence
from zerofit.cad.shape import Extent, Operation

PART = Sequence(
    (
        Extrude(
            paths=(
                Path((LineTo((223, 128)), ArcTo((128, 176), 64, True), LineTo((128, 128)))),
                Path((CircleAt((140, 150), 8),)),
            ),
            angles=(128, 128, 128),
            origin=(64, 65, 128),
            size=96,
            distances=(160, 128),
            operation=Operation.NEW_BODY,
            extent=Extent.ONE_SIDE,
        ),
        Extrude(
            paths=(Path((ArcTo((0, 255), 0, False),)),),
            angles=(192, 64, 191),
            origin=(1, 2, 3),
            size=0,
            distances=(100, 127),
            operation=Operation.INTERSECT,
            extent=Extent.TWO_SIDES,
        ),
    )
)
TEXT = """loop
line 223 128
arc 128 176 64
line 128 128
loop
circle 140 150 8
extrude top at 64 65 128 size 96 new 160
loop
arc 0 255 -0
extrude 192 64 191 at 1 2 3 size 0 intersect two 100 127
end"""


def test_a_part_as_text() -> None:
    """A change here changes what every model of CAD has learnt to write: list it in CHANGELOG.md."""
    assert text.write(PART) == TEXT
    assert text.read(TEXT) == PART


@given(SEQUENCES)
def test_text_is_exact(sequence: Sequence) -> None:
    written = text.write(sequence)
    assert written.isascii()
    assert text.read(written) == sequence


def test_what_is_left_out_may_be_said() -> None:
    assert text.read(TEXT.replace("top", "128 128 128").replace("new 160", "new 160 128")) == PART


@pytest.mark.parametrize(
    ("old", "new", "where"),
    [
        ("line 223 128", "lime 223 128", "line 2, column 3: 'm', where one of 'n' is expected"),
        ("line 223 128", "line 256 128", "line 2, column 8: '6'"),
        ("line 223 128", "line 023 128", "line 2, column 7: '2', where one of ' '"),
        ("line 223 128", "line 223", r"line 2, column 9: '\\n'"),
        ("circle 140", "line 140", r"line 6, column 13: ' ', where one of '\\n' is expected"),
        ("line 128 128\nloop", "circle 140 150 8\nloop", "line 4, column 1: 'c'"),
        ("top at", "up at", "line 7, column 9: 'u'"),
        ("\nend", "\nend\n", r"line 11, column 4: '\\n', where the end is expected"),
        ("\nend", "\ne", "line 11, column 2: ends before it is whole"),
        (TEXT, "", "line 1, column 1: ends before"),
        (TEXT, "end", "line 1, column 1: 'e', where one of 'l'"),
        (TEXT, "lo\u0000p", r"line 1, column 3: '\\x00'"),
    ],
)
def test_errors_say_where(old: str, new: str, where: str) -> None:
    with pytest.raises(CadError, match=where):
        text.read(TEXT.replace(old, new, 1))
