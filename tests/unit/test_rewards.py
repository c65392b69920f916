"""Rewards: what each gives, how they are written in a recipe, and what is said of a wrong one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from zerofit.config.errors import UserError
from zerofit.config.reward import BUILT_IN, Reward
from zerofit.config.reward import Rewards as RewardList
from zerofit.measure.verifier import Verdict
from zerofit.tasks.built_in_rewards import Length, MathCorrect, ThinkFormat
from zerofit.tasks.rewards import REWARDS, Rewards


def rewards(*raw: Any) -> Rewards:
    return Rewards(TypeAdapter(RewardList).validate_python(raw))


def test_short_forms() -> None:
    whole = Reward(name="math_correct", weight=0.5)
    assert Reward.model_validate("math_correct") == Reward(name="math_correct", weight=1.0)
    assert Reward.model_validate({"math_correct": 0.5}) == whole
    assert Reward.model_validate({"name": "math_correct", "weight": 0.5}) == whole
    assert Reward.model_validate(whole.model_dump()) == whole
    assert Reward.model_validate({"name": "length", "options": {"limit": 9}}).options == {"limit": 9}
    assert Reward.model_validate("my.pack_age:good").name == "my.pack_age:good"
    assert set(BUILT_IN) == set(REWARDS)


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (["math_corect"], "did you mean math_correct"),
        (["my.module"], "package.module:function, not 'my.module'"),
        (["os.system('x'):f"], "package.module:function"),
        ([{"math_correct": "much"}], "weight"),
        ([{"math_correct": True}], "weight"),
        ([{"math_correct": float("nan")}], "finite"),
        ([{"math_correct": 1, "length": 1}], "math_correct\n  Extra inputs"),
        (["length", {"length": 2}], "length is listed 2 times"),
        ([], "at least 1"),
    ],
)
def test_wrong_rewards_in_a_recipe(raw: list[Any], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        TypeAdapter(RewardList).validate_python(raw)


@pytest.mark.parametrize(
    ("gold", "completion", "worth"),
    [
        ("72", "48 + 24 = 72 clips", 1),
        ("She sold 48/2 = <<48/2=24>>24.\n#### 1,072", r"\boxed{1072}", 1),
        ("x\n#### 72", "reasons\n#### 72\nSee page 9.", 1),
        (27.0, "27", 1),
        (r"\frac{1}{2}", "<answer>0.5</answer>", 1),
        (r"$\frac{1}{2}$", r"<think>\boxed{3}</think> It is \boxed{\frac12}.", 1),
        (r"thus \boxed{x^2 + 1}", "<think>so</think><answer>1 + x^2</answer>", 1),
        ("6", r"The answer is 7, no: \boxed{6}", 1),
        ("6", r"First \boxed{5}. After all it is \boxed{6}.", 1),
        ("6", r"\boxed{5} and \boxed{6}", 0),
        ("6", r"<think>\boxed{6}</think> It is \boxed{7}.", 0),
        ("6", r"<think>it may be \boxed{6}, or", 0),
        ("6", r"may be \boxed{6} </think>", 0),
        ("6", "I do not know", 0),
        ("6", "", 0),
        ("6", "\ud800 \\boxed{6}", 1),
    ],
)
def test_math_correct(gold: Any, completion: str, worth: float) -> None:
    assert MathCorrect()(completion, {"answer": gold}) == worth


def test_a_hopeless_completion_is_wrong_and_a_hopeless_row_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    class Impatient:
        """Gives up where the real one needs its time to: test_verifier.py."""

        def judge(self, gold: str, texts: Sequence[str]) -> Verdict | None:
            return None if any("!" in text for text in (gold, *texts)) else Verdict(True, False, None)

    monkeypatch.setattr("zerofit.tasks.built_in_rewards.shared_verifier", Impatient)
    assert MathCorrect()(r"\boxed{((9!)!)!}", {"answer": "6"}) == 0.0
    with pytest.raises(UserError, match=r"column answer: '\(\(9!\)!\)!' takes too long to read"):
        MathCorrect()("6", {"answer": "((9!)!)!"})


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"answer": ""}, "train, row 7: reward math_correct: column answer: '' cannot be read"),
        ({"answer": None}, "is to be a number or a text, not None"),
        ({"question": "?"}, "the row has no column answer; it has question"),
    ],
)
def test_a_row_without_an_answer_is_named(row: dict[str, Any], reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        rewards("math_correct").score("6", row, "train, row 7")
    with pytest.raises(UserError, match=reason):
        rewards("think_format", "math_correct").check(row, "train, row 7")


@pytest.mark.parametrize(
    ("completion", "plain", "tags"),
    [
        ("<think>a</think> 7", 1, 0),
        (" <think>\na\n</think>\n\n<answer> 7 </answer>\n", 1, 1),
        ("<think>I put it into <answer> tags</think><answer>7</answer>", 1, 1),
        ("<think>a</think> It is <answer>7</answer>", 0, 0),
        ("<think>a</think><answer>7</answer><answer>8</answer>", 0, 0),
        ("<think>a</think><answer> </answer>", 0, 0),
        ("<think>a</think> \n", 0, 0),
        ("<think> </think> 7", 0, 0),
        ("So: <think>a</think> 7", 0, 0),
        ("<think>a</think> 7 <think>b</think>", 0, 0),
        ("<think>a <think>b</think> 7", 0, 0),
        ("</think> 7 <think>", 0, 0),
        ("a</think> 7", 0, 0),
        ("7", 0, 0),
    ],
)
def test_think_format(completion: str, plain: float, tags: float) -> None:
    assert ThinkFormat()(completion, {}) == plain
    assert ThinkFormat(answer_tags="required")(completion, {}) == tags


def test_a_thought_that_the_prompt_has_opened() -> None:
    opened = ThinkFormat(opened_by="prompt")
    assert [opened(text, {}) for text in ("a</think> 7", "<think>a</think> 7", "a 7")] == [1, 0, 0]


def test_length() -> None:
    """DAPO's equation 13 with L_max 100 and L_cache 20."""
    length = Length(limit=100, buffer=20)
    worth = [length("", {"completion_tokens": tokens}) for tokens in (0, 80, 85, 90, 100, 101, 1000)]
    assert worth == [0, 0, -0.25, -0.5, -1, -1, -1]
    with pytest.raises(UserError, match="no column completion_tokens"):
        length("", {})


OWN = """
def good(completion, row):
    return len(completion) / row["most"]
def scaled(completion, row, *, factor=1.0):
    return factor
def text(completion, row): return "1"
def infinite(completion, row): return float("inf")
def batch(completions): return [1.0]
async def later(completion, row): return 1.0
constant = 3
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_rewards.py").write_text(OWN)
    (tmp_path / "own_broken.py").write_text("1 / 0")
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.usefixtures("own")
def test_rewards_add_up() -> None:
    scaled = {"name": "own_rewards:scaled", "weight": -2, "options": {"factor": 3}}
    score = rewards("own_rewards:good", {"think_format": 0.25}, scaled).score(
        "<think>a</think>b", {"most": 34}, "row 0"
    )
    assert score.parts == {"own_rewards:good": 0.5, "think_format": 1.0, "own_rewards:scaled": 3.0}
    assert score.total == 0.5 + 0.25 - 6


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        ("own_reward:good", "cannot import own_reward .*ModuleNotFoundError.*PYTHONPATH"),
        ("own_broken:good", "cannot import own_broken .ZeroDivisionError"),
        ("own_rewards:goood", "own_rewards has no goood; did you mean good"),
        ("own_rewards:constant", "is to be a function, not int 3"),
        ("own_rewards:batch", r"cannot be called as batch\(completion, row\): too many positional"),
        ("own_rewards:later", "is to be a function"),
        ({"name": "own_rewards:scaled", "options": {"facto": 1}}, "unexpected keyword argument 'facto'"),
        ("subprocess:getoutput", "standard library; name a function of your own"),
        ("length", "reward length: limit: Field required\nreward length: buffer: Field required"),
        ({"name": "length", "options": {"limit": 0, "buffer": 2}}, "reward length: limit: .* equal to 1, not 0"),
        ({"name": "length", "options": {"limit": 1, "buffer": 2}}, "reward length: buffer is to be at most limit, 1"),
        ({"name": "math_correct", "options": {"anser": "x"}}, "no such option; it has answer; did you mean answer"),
    ],
)
def test_rewards_that_cannot_be_had(raw: Any, reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        rewards(raw)


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("good", "row 3: reward own_rewards:good: KeyError: 'most'"),
        ("text", "row 3: reward own_rewards:text: gave '1', which is no finite number"),
        ("infinite", "gave inf, which is no finite number"),
    ],
)
def test_a_reward_that_fails_stops_with_its_name_and_the_rows(name: str, reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        rewards(f"own_rewards:{name}").score("x", {}, "row 3")
