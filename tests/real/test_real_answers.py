"""Rewards on real rollouts and real gold answers."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from zerofit.config.errors import UserError
from zerofit.tasks.built_in_rewards import MathCorrect, ThinkFormat, gold_text

DATA = Path(__file__).parents[2].parent / "shared" / "data"
pytestmark = [pytest.mark.real, pytest.mark.skipif(not DATA.is_dir(), reason="no real data beside the repository")]
MODELS = ("6b_finetuning", "6b_verification", "175b_finetuning", "175b_verification")


def lines(file: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (DATA / "math" / file).read_text().splitlines()]


def rollouts() -> Iterator[tuple[str, dict[str, Any], bool]]:
    """Solutions of GSM8K by four models, the row of each, and whether its authors found it right."""
    for row in lines("gsm8k/example_model_solutions_first660.jsonl"):
        gold = {"answer": row["ground_truth"].rpartition("A:")[2].strip()}
        for model in MODELS:
            yield row[model]["solution"], gold, row[model]["is_correct"]


def test_gsm8k_rollouts_are_judged_as_its_authors_judged_them() -> None:
    reward = MathCorrect()
    kinds = Counter((reward(solution, gold) == 1.0, right) for solution, gold, right in rollouts())
    agreed = kinds[True, True] + kinds[False, False]
    print(f"\nagreed on {agreed} of {kinds.total()}; {kinds}")
    assert kinds.total() == 2640
    assert kinds[True, True] > 700
    assert kinds[False, False] > 700
    assert agreed / kinds.total() >= 0.995


def golds(name: str) -> list[Any]:
    if name in ("aime_1983_2023/aime.json", "math_train/math.json"):
        return [row["answer"] for row in json.loads((DATA / "math" / name).read_text())]
    return [row["Answer" if name.startswith("svamp") else "answer"] for row in lines(name)]


SETS = {
    "aime24/test.jsonl": 30,
    "aime_1983_2023/aime.json": 975,
    "amc23/test.jsonl": 40,
    "svamp/test.jsonl": 1000,
    "gsm8k/test_first660.jsonl": 660,
    "gsm8k/train.jsonl": 7473,
    "math500/math500_shared350.jsonl": 350,
    "math_train/math.json": 7474,
}
LONG = ("aime_1983_2023/aime.json", "svamp/test.jsonl", "gsm8k/train.jsonl", "math_train/math.json")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.thorough] if name in LONG else []) for name in SETS]
)
def test_every_gold_answer_is_right_by_itself(name: str) -> None:
    """Boxed; and, where it is a number or a solution, as it stands. Four of MATH have no answer: errors."""
    found = golds(name)
    assert len(found) == SETS[name]
    wrong, unreadable = [], []
    for gold in found:
        try:
            if MathCorrect()(gold_text(gold, "answer"), {"answer": gold}) != 1.0:
                wrong.append(gold)
            if not name.startswith("math") and MathCorrect()(str(gold), {"answer": gold}) != 1.0:
                wrong.append(gold)
        except UserError:
            unreadable.append(gold)
    assert not wrong
    assert unreadable == ([None, None, "", ""] if name == "math_train/math.json" else [])


@pytest.mark.thorough
def test_math_solutions_end_in_their_answers() -> None:
    """Whole solutions, most with their answer in a box, and another row's answer beside."""
    rows = lines("math500/math500_shared350.jsonl")
    right = [MathCorrect()(row["solution"], row) for row in rows]
    other = [MathCorrect()(row["solution"], rows[number - 1]) for number, row in enumerate(rows)]
    equal = sum(row["answer"] == rows[number - 1]["answer"] for number, row in enumerate(rows))
    print(
        f"\n{sum(right):.0f} of {len(rows)} right; {sum(other):.0f} right by another answer, {equal} of them the same"
    )
    assert sum(right) / len(rows) >= 0.99
    assert sum(other) - equal <= 3


def test_countdown_rollouts_have_the_format() -> None:
    text = (DATA / "cot" / "datawhale_r1_countdown_3b_success.txt").read_text()
    completions = [part.strip() for part in text.split("==============") if part.strip()]
    formed = [ThinkFormat(answer_tags="required")(completion, {}) for completion in completions]
    print(f"\n{sum(formed):.0f} of {len(formed)} have the format")
    assert len(completions) == 1741
    assert sum(formed) / len(formed) >= 0.99
    assert sum(ThinkFormat()(part, {}) for part in completions) >= sum(formed)
