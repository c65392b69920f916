"""Real mathematics and reasoning data beside the repository: every row is recognised, and counts are exact."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from zerofit.prepare.options import Options
from zerofit.prepare.pipeline import prepare

DATA = Path(__file__).parents[2].parent / "shared" / "data"
pytestmark = [pytest.mark.real, pytest.mark.skipif(not DATA.is_dir(), reason="no real data beside the repository")]
GSM8K, MATH, BARE = "question/answer (GSM8K)", "problem/solution/answer (MATH)", "problem/answer"


def prepared(output: Path, *inputs: str, **options: Any) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    prepare(Options(tuple(str(DATA / one) for one in inputs), output, **options))
    rows = [row for part in sorted(output.glob("*.parquet")) for row in pq.read_table(part).to_pylist()]
    return rows, json.loads((output / "prepare.json").read_text(encoding="utf-8"))


def test_gsm8k_is_read_whole_and_every_answer_is_found(tmp_path: Path) -> None:
    rows, figures = prepared(tmp_path / "out", "math/gsm8k/train.jsonl")
    assert figures["rows"] == {"read": 7473, "kept": 7473, "dropped": 0, "bad": 0}
    assert figures["usable"] == {"assistant": 7473, "answer": 7473, "both": 7473}
    for row in rows:
        assert row["messages"][-1]["content"].endswith(f"#### {row['answer']}")
        assert float(row["answer"].replace(",", "")) == int(row["answer"].replace(",", ""))
        assert row["prompt"] == row["messages"][:-1]


def test_every_form_of_the_mathematics_is_recognised(tmp_path: Path) -> None:
    rows, figures = prepared(tmp_path / "out", "math", near_duplicates="off")
    assert {file["name"]: file["forms"] for file in figures["files"]} == {
        "aime24/test.jsonl": {MATH: 30},
        "aime_1983_2023/aime.json": {MATH: 975},
        "amc23/test.jsonl": {BARE: 40},
        "gsm8k/example_model_solutions_first660.jsonl": {"question/ground_truth": 660},
        "gsm8k/test_first660.jsonl": {GSM8K: 660},
        "gsm8k/train.jsonl": {GSM8K: 7473},
        "math500/math500_shared350.jsonl": {MATH: 350},
        "math_train/math.json": {BARE: 7474},
        "orz_format/aime2024.json": {"prompt/final_answer (Open-Reasoner-Zero)": 30},
        "svamp/test.jsonl": {"Body/Question/Answer (SVAMP)": 1000},
    }
    # Four problems of math.json have no answer, and one is there twice.
    assert figures["rows"] == {"read": 18692, "kept": 18687, "dropped": 5, "bad": 4}
    assert figures["usable"]["answer"] == 18687
    answers: dict[str, set[str]] = {}
    for row in rows:
        answers.setdefault(row["source"].partition("/")[0], set()).add(row["answer"])
    assert {"27", "36"} <= answers["amc23"]  # 27.0 in the file
    assert r"\left( 3, \frac{\pi}{2} \right)" in answers["math500"]


def test_the_boxed_answers_of_solutions_are_those_that_are_given(tmp_path: Path) -> None:
    source = DATA / "math" / "math500" / "math500_shared350.jsonl"
    given = [json.loads(line) for line in source.read_text(encoding="utf-8").splitlines()]
    bare = tmp_path / "bare.jsonl"
    fields = ("problem", "solution")
    bare.write_text("".join(json.dumps({name: row[name] for name in fields}) + "\n" for row in given), encoding="utf-8")
    rows, _ = prepared(tmp_path / "out", str(bare))
    assert [row["answer"] for row in rows] == [row["answer"] for row in given]


def test_mathematics_that_is_in_the_evaluation_data_is_found(tmp_path: Path) -> None:
    tests = (str(DATA / "math" / "math500"),)
    _, figures = prepared(
        tmp_path / "out", "math/aime_1983_2023", "math/math_train", against=tests, near_duplicates="off"
    )
    same = [one["source"] for one in figures["overlap"]["kinds"]["question"]["examples"]]
    assert same == ["aime_1983_2023/aime.json:561", "aime_1983_2023/aime.json:787"]
    assert figures["overlap"]["evaluation"][0]["questions"] == 350


def test_typed_reasoning_becomes_think(tmp_path: Path) -> None:
    source = DATA / "cot" / "reason_tool_use_demo_50.jsonl"
    given = [json.loads(line) for line in source.read_text(encoding="utf-8").splitlines()]
    minimind = str(DATA / "tokenizers" / "minimind")
    rows, figures = prepared(tmp_path / "out", "cot/reason_tool_use_demo_50.jsonl", tokenizer=minimind, context=8192)
    assert figures["forms"] == {"messages (OpenAI)": {"rows": 50, "kept": 50}}
    assert figures["lengths"]["above_context"] == 0
    thoughts = 0
    for row, whole in zip(rows, given, strict=True):
        assert [turn["role"] for turn in row["messages"]] == [turn["role"] for turn in whole["messages"]]
        assert row["tools"] == whole["tools"]
        for turn, original in zip(row["messages"], whole["messages"], strict=True):
            kinds = [part["type"] for part in original["content"]]
            assert turn["content"].startswith("<think>\n") == (kinds[0] == "reasoning")
            assert turn["content"].count("<tool_call>\n") == kinds.count("tool_call")
            assert all(part["value"].strip() in turn["content"] for part in original["content"])
            thoughts += kinds[0] == "reasoning"
    assert thoughts == 112


def test_rollouts_between_lines(tmp_path: Path) -> None:
    rows, figures = prepared(tmp_path / "out", "cot/datawhale_r1_countdown_3b_success.txt")
    assert figures["forms"]["text"]["rows"] == 1741
    assert figures["duplicates"]["exact"] == 17
    assert figures["rows"]["bad"] == 0
    assert all(row["answer"] for row in rows)
    assert all(row["messages"][0]["content"].startswith("<think>") for row in rows)
