"""Embedded word problems: right, the same each time, and apart from those that are tested on."""

from __future__ import annotations

import re
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zerofit.config.errors import UserError
from zerofit.data.arithmetic import TEMPLATES, Problem, majority_accuracy, problem, split
from zerofit.tasks.built_in_rewards import MathCorrect, ThinkFormat

RESULTS = {
    "add": lambda a, b: a + b,
    "subtract": lambda a, b: a - b,
    "multiply": lambda a, b: a * b,
    "multiply, add": lambda a, b, c: a * b + c,
    "add, subtract": lambda a, b, c: a + b - c,
}


@given(st.integers(0, 2**32 - 1), st.integers(0, 10**9), st.integers(2, 999))
def test_a_problem_asks_for_its_answer_and_thinks_in_right_steps(seed: int, index: int, largest: int) -> None:
    one = problem(seed, index, largest)
    assert one == problem(seed, index, largest)
    assert one.answer == RESULTS[one.kind](*one.operands)
    assert one.answer >= 0
    assert tuple(map(int, re.findall(r"\d+", one.question))) == one.operands
    assert all(2 <= operand <= largest for operand in one.operands)
    steps = re.findall(r"^(\d+) ([-+*]) (\d+) = (\d+)$", one.thought, re.MULTILINE)
    values = [{"+": int(a) + int(b), "-": int(a) - int(b), "*": int(a) * int(b)}[sign] for a, sign, b, _ in steps]
    assert len(steps) == len(one.operands) - 1
    assert values == [int(result) for *_, result in steps]
    assert values[-1] == one.answer


def test_problems_stay_what_they_are() -> None:
    """A change here changes every run on this data: list it in CHANGELOG.md."""
    assert problem(0, 0) == Problem(
        kind="subtract",
        operands=(19, 17),
        question="Farah has 19 pens and gives 17 of them to Ivan. How many are left?",
        thought="Farah starts with 19 and gives 17 away.\n19 - 17 = 2",
        answer=2,
    )
    train, test = split(0, train=500, test=100)
    text = "\n".join(f"{one.question} {one.completion}" for one in (*train, *test))
    assert sha256(text.encode()).hexdigest()[:16] == "64ad19a4f58cdc32"


@given(st.integers(0, 1000), st.integers(0, 1000), st.integers(12, 99))
def test_what_is_tested_on_shares_no_operands_with_training_of_any_seed(seed: int, other: int, largest: int) -> None:
    train, test = split(seed, train=60, test=20, largest=largest)
    foreign, _ = split(other, train=60, test=0, largest=largest)
    assert (len(train), len(test)) == (60, 20)
    learnt = {tuple(sorted(one.operands)) for one in (*train, *foreign)}
    assert not learnt & {tuple(sorted(one.operands)) for one in test}
    assert len({one.question for one in (*train, *test)}) == 80


def test_a_split_is_of_all_kinds_and_a_longer_one_begins_alike() -> None:
    train, test = split(3, train=500, test=100)
    for part in (train, test):
        assert {one.kind for one in part} == set(RESULTS)
    assert len(RESULTS) == len(TEMPLATES)
    assert split(3, train=600, test=120)[0][:500] == train
    assert split(4, train=500, test=100)[0] != train
    assert 0 < majority_accuracy(train, test) < 0.15


def test_a_share_of_training_solutions_estimates_and_nothing_else_changes() -> None:
    plain, plain_test = split(0, train=2000, test=100)
    mixed, test = split(0, train=2000, test=100, estimates=0.35)
    assert test == plain_test
    rough = [(one, was) for one, was in zip(mixed, plain, strict=True) if one.given is not None]
    assert 0.31 < len(rough) / len(mixed) < 0.39
    assert all(one == was for one, was in zip(mixed, plain, strict=True) if one.given is None)
    for one, was in rough:
        assert (one.question, one.operands, one.answer) == (was.question, was.operands, was.answer)
        assert one.given is not None
        assert one.given % 10 == 0
        assert abs(one.given - one.answer) <= 5
        assert MathCorrect()(one.completion, one.row()) == (one.given == one.answer)
    assert sum(one.given == one.answer for one, _ in rough) / len(rough) < 0.2


def test_rewards_find_its_completions_right() -> None:
    train, _ = split(0, train=40, test=0, largest=99)
    assert all(MathCorrect()(one.completion, one.row()) == 1 for one in train)
    assert all(ThinkFormat()(one.completion, one.row()) == 1 for one in train)
    assert not any(MathCorrect()(one.completion, {"answer": one.answer + 1}) for one in train)


def test_majority_accuracy_by_hand() -> None:
    def of(*answers: int) -> list[Problem]:
        return [Problem("add", (1, 1), "?", "", answer) for answer in answers]

    assert majority_accuracy(of(1, 2, 2), of(2, 1, 1, 1)) == 0.25


@pytest.mark.parametrize("fields", [{"largest": 2}, {"largest": 1}, {"train": -1}])
def test_a_split_that_cannot_be_had(fields: dict[str, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zerofit.data.arithmetic.TRIES", 200)
    with pytest.raises(UserError, match="raise largest|are to be at least"):
        split(0, **{"train": 6000, "test": 6000, **fields})
