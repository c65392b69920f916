"""The page of an evaluation on CAD models, and what a run's page shows of it."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any

import pytest
import shape_pages
from test_language_pages import charts
from test_page import page, planned, words

from zerofit.config.errors import UserError
from zerofit.report.page import write_page
from zerofit.report.pages.sheet import LONGEST, sheet


def test_the_page_says_how_good_the_shapes_are_and_what_comes_of_nothing(tmp_path: Path) -> None:
    text = page(shape_pages.write_evaluation(tmp_path))
    said = words(text)
    for expected in (
        "Told text+points",
        "Valid 93.0 % 50.0 % told nothing",
        "IoU 78.0 %",
        "Chamfer × 1,000 1.23 median",
        "the likeliest token, up to 128 tokens, seed 0, held to the grammar",
        "text text+points none models 8 8 8",
        "valid 87.0 % (85.0 to 89.0) 93.0 % (91.0 to 95.0) 50.0 % (48.0 to 52.0)",
        "chamfer × 1,000, median 1.23 (1.03 to 1.43) 1.23 (1.03 to 1.43) –",
        "OpenCASCADE: 1 of 3 faces 2 2 0",
        "cut off 12.5 % 12.5 % 12.5 %",
    ):
        assert expected in said, expected
    drawn = charts(text)["figures"]["data"]
    assert [bar["name"] for bar in drawn] == ["parsed", "valid", "command accuracy", "parameter accuracy", "IoU"]
    assert drawn[1]["x"] == [87, 93, 50]
    assert drawn[1]["error_x"]["array"] == pytest.approx([2, 2, 2])
    assert drawn[4]["x"] == [78, 78, None]


def test_each_model_is_shown_once_beside_what_was_made_of_it(tmp_path: Path) -> None:
    text = page(shape_pages.write_evaluation(tmp_path, pictures=4))
    said = words(text)
    assert "4 of 8 models" in said
    pictures = re.findall(r'<img src="data:image/png;base64,([^"]+)" alt="([^"]+)"', text)
    assert [words for _, words in pictures[:4]] == [
        "the true part part-0",
        "the part made of text",
        "the part made of text+points",
        "the part made of none",
    ]
    assert base64.b64decode(pictures[0][0]) == shape_pages.png(0)
    assert base64.b64decode(pictures[1][0]) == shape_pages.png(100)
    assert len(pictures) == 4 + 3 * 3
    assert "✓ valid chamfer × 1,000 1.23 IoU 0.50" in said
    assert said.count("no picture") == 3
    assert "✗ not valid: text: line 2, column 19: &#39;&lt;&#39;" in said


def test_what_a_model_writes_and_captions_are_never_markup(tmp_path: Path) -> None:
    text = page(shape_pages.write_evaluation(tmp_path, pictures=4))
    assert "<script>alert" not in text
    assert "<img src=x" not in text
    assert text.count("&lt;img src=x") == 4 + 3, "captions, and predictions that are not valid"


def test_many_large_pictures_stay_within_six_megabytes(tmp_path: Path) -> None:
    rows = [
        shape_pages.shape(f"part-{n}", mix, n, 0)
        | {"truth_png": shape_pages.noise(150, n), "prediction_png": shape_pages.noise(150, 100 + n)}
        for mix in shape_pages.MIXES
        for n in range(24)
    ]
    shape_pages.write_evaluation(tmp_path)
    shape_pages.write_rows(tmp_path, rows)
    path = write_page(tmp_path)
    assert path.stat().st_size < 6e6
    assert re.search(r"9 of 24 models", words(path.read_text()))


def test_a_run_lists_its_evaluations_and_shows_shapes_of_the_newest(tmp_path: Path) -> None:
    planned(tmp_path)
    for name in ("1", "2"):
        write_page(shape_pages.write_evaluation(tmp_path / "evaluations" / name, models=9, pictures=9))
    text = page(tmp_path)
    said = words(text)
    assert 'href="evaluations/2/report.html"' in text
    assert "2 02-points parts, test models none 90.0 % 50.0 % 41.0 % 30.0 % – –" in said
    assert "6 of 9 models" in said
    assert text.count("the true part") == 6


def test_evaluations_of_both_kinds_stand_beside_each_other(tmp_path: Path) -> None:
    from language_pages import write_evaluation

    planned(tmp_path)
    shape_pages.write_evaluation(tmp_path / "evaluations/1")
    write_evaluation(tmp_path / "evaluations/2")
    said = words(page(tmp_path))
    assert "Evaluations of problems" in said
    assert "Evaluations of CAD models" in said


def test_without_pictures_there_is_no_sheet(tmp_path: Path) -> None:
    said = words(page(shape_pages.write_evaluation(tmp_path, pictures=0)))
    assert "no picture" not in said
    assert "Figures by what is told" in said


@pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1" + bytes(40) + b"PAR1"])
def test_rows_that_cannot_be_read_leave_the_figures(tmp_path: Path, content: bytes) -> None:
    shape_pages.write_evaluation(tmp_path)
    (tmp_path / "shapes.parquet").write_bytes(content)
    said = words(page(tmp_path))
    assert "models 8 8 8" in said
    assert "Why parts are not valid" not in said


def test_a_figure_that_is_missing_is_named(tmp_path: Path) -> None:
    shape_pages.write_evaluation(tmp_path)
    body: dict[str, Any] = shape_pages.evaluation()
    del body["figures"]["text"]["valid"]
    (tmp_path / "evaluation.json").write_text(json.dumps(body))
    with pytest.raises(UserError, match="is not what this version of zerofit writes: figures.text.valid: Field"):
        write_page(tmp_path)


def test_a_valid_part_may_lack_a_distance_and_says_why() -> None:
    row = shape_pages.shape("part-0", "text", 0, 1) | {"chamfer": None, "iou": None, "reason": "the true shape: open"}
    made = sheet([row], ["text"])
    assert made is not None
    (only,) = made.items[0].made
    assert (only.valid, only.reason, only.values) == (True, "the true shape: open", [])


def test_a_reason_is_one_line_and_not_long() -> None:
    row = shape_pages.shape("part-3", "text", 3, 4) | {"reason": "a\nb " * 200, "truth_png": b"no png"}
    made = sheet([row], ["text"])
    assert made is not None
    only = made.items[0]
    assert only.truth is None
    assert len(only.made[0].reason) == LONGEST
    assert only.made[0].reason.startswith("a b a b")
