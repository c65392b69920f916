"""What command texts are worth: beside the true one, and over many."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from zerofit.cad.kernel import Kernel
from zerofit.config.cad import COMBINATIONS
from zerofit.config.errors import UserError
from zerofit.evaluate.shape_asked import AskedShapes, parse_mix
from zerofit.evaluate.shape_judging import Judged, Written, judge
from zerofit.evaluate.shape_request import Asked
from zerofit.measure.shapes import SHAPES, ShapeRow, figures

TRUTH = """\
loop
line 223 128
line 223 176
line 128 176
line 128 128
extrude top at 64 64 128 size 96 new 160
end"""
HIGHER = TRUTH.replace("new 160", "new 192")
FLAT = TRUTH.replace("new 160", "new 128")
CUT = TRUTH.removesuffix("end")
CROSSED = TRUTH.replace("line 223 176\nline 128 176", "line 128 176\nline 223 176")


@pytest.fixture(scope="module")
def kernel() -> Iterator[Kernel]:
    with Kernel() as kernel:
        yield kernel


def judged(kernel: Kernel, *texts: str, truth: str = TRUTH, pictured: bool = False) -> list[ShapeRow]:
    written = [Written("text", text, 9, stopped=True) for text in texts]
    return list(judge(kernel, [Judged(Asked("a", "A block.", truth), written, pictured)], lambda done: None))


def test_a_text_is_laid_beside_the_true_one(kernel: Kernel) -> None:
    same, higher, flat, cut, crossed = judged(kernel, TRUTH, HIGHER, FLAT, CUT, CROSSED, pictured=True)
    assert (same.parsed, same.valid, same.reason) == (True, True, None)
    assert (same.chamfer, same.command_accuracy, same.parameter_accuracy) == (0.0, 1.0, 1.0)
    assert same.iou == pytest.approx(1.0)
    assert same.prediction_png == same.truth_png is not None
    assert higher.iou == pytest.approx(0.5)
    assert 0.0 < (higher.chamfer or 0.0) < 0.1
    assert higher.prediction_png not in (None, same.truth_png)
    assert (higher.command_accuracy, higher.valid) == (1.0, True)
    assert 0.9 < (higher.parameter_accuracy or 0.0) < 1.0
    for one in (flat, crossed):
        assert (one.parsed, one.valid, one.command_accuracy) == (True, False, 1.0)
        assert (one.chamfer, one.iou, one.prediction_png) == (None, None, None)
    assert "it has no length" in (flat.reason or "")
    assert "crosses" in (crossed.reason or "")
    assert (cut.parsed, cut.valid, cut.command_accuracy, cut.parameter_accuracy) == (False, False, None, None)
    assert cut.reason == "text: line 7, column 1: ends before it is whole"
    assert cut.truth_png == same.truth_png


def test_a_true_text_that_makes_no_solid_leaves_distances_out(kernel: Kernel) -> None:
    row = judged(kernel, TRUTH, truth=FLAT)[0]
    assert (row.parsed, row.valid, row.chamfer, row.iou) == (True, True, None, None)
    assert (row.reason or "").startswith("the true shape: ")


def row(mix: str, distance: float | None, accuracy: float | None) -> ShapeRow:
    parsed = accuracy is not None
    return ShapeRow(
        *("a", mix, None, "t", "p", parsed, distance is not None, None, accuracy, None, distance, distance),
        tokens=4,
        stopped=parsed,
        truth_png=b"png",
        prediction_png=None,
    )


def test_figures_of_each_mix(tmp_path: Path) -> None:
    rows = [row("text", 0.1, 1.0), row("text", 0.3, 0.5), row("text", 0.2, 0.5), row("text", None, None)]
    rows += [row("none", None, 0.5)] * 3
    SHAPES.write(tmp_path / "shapes.parquet", rows)
    assert SHAPES.read(tmp_path / "shapes.parquet") == rows
    found = figures(rows)
    assert list(found) == ["text", "none"]
    text, none = found["text"], found["none"]
    assert (text["shapes"], text["parsed"]["value"], text["valid"]["value"]) == (4, 0.75, 0.75)
    assert text["command_accuracy"]["value"] == 0.5, "what was not parsed is 0"
    assert text["parameter_accuracy"]["value"] == 0.0
    assert text["chamfer"] == {"value": 0.2, "low": 0.1, "high": 0.3}
    assert text["chamfer_mean"]["value"] == text["iou"]["value"] == pytest.approx(0.2)
    assert text["truncated"] == 0.25
    assert (none["chamfer"], none["chamfer_mean"], none["iou"]) == (None, None, None)
    assert none["valid"]["value"] == 0.0 < none["valid"]["high"], "three of three say little"


def test_mixes_are_named_once_and_in_one_order() -> None:
    assert parse_mix("none,image+text, points,text+image") == ("points", "text+image", "none")
    with pytest.raises(UserError, match=r"--mix: 'txt' is none of text, .*did you mean text"):
        parse_mix("txt")


def test_the_command_asks_for_the_same_again() -> None:
    asked = AskedShapes("runs/a", mix=("text", "none"), constrained=True, limit=3, data=("data.parts=5",))
    assert asked.command() == "zerofit eval runs/a --data data.parts=5 --mix text,none --constrained --limit 3"
    assert COMBINATIONS[-1] == "none"
