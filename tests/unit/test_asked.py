"""What `zerofit eval` was asked for, and the problems that it is about."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from zerofit.config.errors import UserError
from zerofit.evaluate.asked import Asked, parse_ks
from zerofit.evaluate.parts import Prompt
from zerofit.evaluate.problems import Problem, check_answers, digest, majority_baseline, read_problems
from zerofit.evaluate.prompts import tokens_of_a_completion
from zerofit.evaluate.seeds import seed_of
from zerofit.measure.verifier import Verdict
from zerofit.prepare.rows import Example, Message


def test_defaults_follow_from_the_number_of_samples() -> None:
    one, several = Asked("m"), Asked("m", k=(1, 8))
    assert (one.per_problem, one.sampling(5).temperature) == (1, 0.0)
    assert (several.per_problem, several.sampling(5).temperature) == (8, 0.7)
    assert Asked("m", k=(1, 4), samples=16).per_problem == 16
    assert Asked("m", temperature=0.3).sampling(5).temperature == 0.3
    assert parse_ks("8,2,8") == (1, 2, 8)
    for text in ("", "1;2", "0,1"):
        with pytest.raises(UserError, match="--k"):
            parse_ks(text)


def test_the_command_asks_for_the_same() -> None:
    asked = Asked(
        "my model",
        data=("a.jsonl", "b"),
        fields={"question": "q"},
        k=(1, 8),
        max_tokens=7,
        system="Be brief.",
        output=Path("o"),
    )
    assert asked.command() == (
        "zerofit eval 'my model' --data a.jsonl --data b --fields question=q --k 1,8 --max-tokens 7 "
        "--system 'Be brief.' --output o"
    )
    assert Asked("m").command() == "zerofit eval m"


def written(path: Path, *rows: Any) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_problems_of_any_form_are_questions_and_answers(tmp_path: Path) -> None:
    gsm = written(tmp_path / "gsm.jsonl", {"question": "1+1?", "answer": "It is 2.\n#### 2"})
    maths = written(tmp_path / "math.jsonl", {"problem": "1+1?", "solution": "so \\boxed{2}", "answer": "2"})
    turns = [{"role": "system", "content": "Think."}, {"role": "user", "content": "1+1?"}]
    chat = written(tmp_path / "chat.jsonl", {"messages": turns, "answer": "2"})
    other = written(tmp_path / "other.jsonl", {"q": "1+1?", "a": "2"})
    found = read_problems([gsm, maths, chat], {}, None, None)
    assert [(one.name, one.gold) for one in found] == [(f"{name}.jsonl:1", "2") for name in ("gsm", "math", "chat")]
    assert all(one.example.prompt[-1] == Message("user", "1+1?") for one in found)
    assert len({digest([one]) for one in found}) == 1  # whatever the form, and the system message
    assert read_problems([other], {"question": "q", "answer": "a"}, None, None)[0].gold == "2"
    (asked,) = read_problems([gsm], {}, "Be brief.", None)
    assert asked.example.prompt[0] == Message("system", "Be brief.")
    assert [one.name for one in read_problems([gsm, maths], {}, None, 1)] == ["gsm.jsonl:1"]
    assert digest(found[:2]) != digest(found[:1])


def test_rows_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    good = {"question": "1+1?", "answer": "2"}
    turns = [{"role": "user", "content": "Hello?"}, {"role": "assistant", "content": "Hello."}]
    for name, row, reason in (
        ("open", {"messages": turns}, "has no answer to check against"),
        ("mute", {"messages": turns[1:], "answer": "2"}, "asks nothing"),
        ("form", {"x": 1}, "it has the fields x"),
    ):
        path = written(tmp_path / f"{name}.jsonl", good, row)
        with pytest.raises(UserError, match=f"--data: {name}.jsonl:2: .*{reason}"):
            read_problems([path], {}, None, None)
        assert len(read_problems([path], {}, None, 1)) == 1
    (tmp_path / "bad.jsonl").write_text("{\n")
    with pytest.raises(UserError, match="--data: bad.jsonl:1: not JSON"):
        read_problems([str(tmp_path / "bad.jsonl")], {}, None, None)


def test_an_answer_that_cannot_be_read_is_named_before_anything_is_generated(monkeypatch: pytest.MonkeyPatch) -> None:
    class Impatient:
        def judge(self, gold: str, texts: Any) -> Verdict | None:
            return None if "!" in gold else Verdict(True, False, None)

    monkeypatch.setattr("zerofit.tasks.built_in_rewards.shared_verifier", Impatient)
    problems = [
        Problem(f"a:{n}", Example((Message("user", "?"),), gold), gold) for n, gold in enumerate(("3", "(9!)!"))
    ]
    with pytest.raises(UserError, match=r"--data: a:1: column answer: .* takes too long to read"):
        check_answers(problems)


def test_the_baseline_is_the_share_of_the_commonest_answer() -> None:
    assert majority_baseline(["1", "2", "2", "3"]) == 0.5


def test_seeds_are_a_samples_own() -> None:
    seeds = {seed_of(seed, problem, sample) for seed in (0, 1, 11) for problem in range(20) for sample in range(20)}
    assert len(seeds) == 3 * 20 * 20
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert seed_of(0, 1, 2) == 6451481084885256472


def test_completions_fit_into_the_context() -> None:
    prompts = [Prompt("a", "", [1] * 3, "1"), Prompt("b", "", [1] * 90, "1")]
    assert tokens_of_a_completion(prompts, None, None) == 1024
    assert tokens_of_a_completion(prompts, 100, None) == 10
    assert tokens_of_a_completion(prompts, 100, 10) == 10
    with pytest.raises(UserError, match="b: its prompt of 90 tokens and 11 of a completion .* use --max-tokens 10"):
        tokens_of_a_completion(prompts, 100, 11)
    with pytest.raises(UserError, match="b: its prompt of 90 tokens does not fit"):
        tokens_of_a_completion(prompts, 90, None)
