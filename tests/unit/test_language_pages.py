"""Pages and tables of runs of language tasks, and of evaluations: what they say, and that texts stay texts."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import language_pages
import pytest
from hypothesis import given
from hypothesis import strategies as st
from language_examples import PROMPTS, TURING, grpo, sft
from test_page import page, words

from zerofit.config.errors import UserError
from zerofit.config.schema import Recipe
from zerofit.plan.build import make_plan
from zerofit.plan.files import write_spec
from zerofit.report import table
from zerofit.report.live import Tail
from zerofit.report.page import write_page
from zerofit.report.pages.parts import Piece
from zerofit.report.pages.writing import MOST, pieces


def planned(directory: Path, recipe: Recipe) -> None:
    write_spec(make_plan(recipe, facts=PROMPTS, hardware=TURING, ranks=2, run_dir=directory))


def charts(text: str) -> dict[str, Any]:
    found = re.search(r'id="charts">(.*?)</script>', text, re.DOTALL)
    assert found is not None
    drawn: dict[str, Any] = json.loads(found[1])
    return drawn


def test_a_grpo_run_shows_its_rewards_and_what_it_wrote(tmp_path: Path) -> None:
    planned(tmp_path, grpo(grpo={"rewards": [{"math_correct": 1}, {"think_format": 0.2}]}))
    language_pages.write_metrics(tmp_path, language_pages.grpo_lines())
    language_pages.write_completions(tmp_path / "completions.parquet")
    test = {
        "split": "test",
        "reward": 0.913,
        "pass@1": 0.7,
        "problems": 1319,
        "completion_length": 208.4,
        "clipped": 0.04,
    }
    result = {"exit": "finished", "test": test, "steps": 60, "samples_s": 3.1, "best": {"step": 40, "value": 0.6}}
    (tmp_path / "result.json").write_text(json.dumps(result))
    text = page(tmp_path)
    said = words(text)
    for expected in (
        "Test pass@1 70.00 % of 1,319",
        "Test reward 0.9130 208 tokens each, 4.0 % cut off",
        "3.10 completions/s",
        "64 completions = 16 prompts × 4, one for each step",
        "1 × math_correct, 0.2 × think_format",
        "7,473 prompts",
        "peak: rollout, 10.8 GiB of 11 a card",
        "Of the 10 completions that were kept of step 3; reasoning is grey.",
        "reward 1.00 math_correct 1.00 think_format 0.100 advantage 0.500 right answer 3 tokens 40",
        "tokens 49, cut off",
    ):
        assert expected in said, expected
    drawn = charts(text)
    assert [curve["name"] for curve in drawn["rewards"]["data"] if curve["opacity"] == 1] == [
        "math_correct",
        "think_format",
    ]
    assert {
        "reward",
        "pass",
        "kl",
        "entropy",
        "length",
        "clipped",
        "clip-ratio",
        "generate",
        "alike",
        "val-rewards",
    } <= drawn.keys()
    assert not [name for name in drawn if name.startswith("field-")], "every figure of the task has its chart"
    assert drawn["pass"]["data"][0]["y"][-1] == 70
    best, worst = text.index("Best rewards"), text.index("Worst rewards")
    assert best < text.index("Let me think about 3.0.") < worst < text.index("Let me think about 3.9.")
    assert "Let me think about 2." not in text, "the newest generation alone"


def test_completions_that_are_all_worth_the_same_are_not_ranked(tmp_path: Path) -> None:
    planned(tmp_path, grpo())
    language_pages.write_completions(tmp_path / "completions.parquet", lost=0.0)
    said = words(page(tmp_path))
    assert "All have the same reward" in said
    assert "Best rewards" not in said


def test_an_sft_run_shows_tokens(tmp_path: Path) -> None:
    planned(tmp_path, sft())
    language_pages.write_metrics(tmp_path, language_pages.sft_lines())
    assert "Validation, tokens right 77.00 %" in words(page(tmp_path))
    test = {"split": "validation", "loss": 0.5, "perplexity": 1.6487, "token_accuracy": 0.771, "tokens": 4200}
    result = {"exit": "finished", "test": test, "steps": 8, "best": {"step": 8, "value": 0.5}}
    (tmp_path / "result.json").write_text(json.dumps(result))
    text = page(tmp_path)
    said = words(text)
    for expected in ("Validation, tokens right 77.10 % of 4,200 tokens", "0.5000 nats", "Validation perplexity 1.649"):
        assert expected in said, expected
    assert {"token-accuracy", "perplexity", "entropy", "tokens"} <= charts(text).keys()
    shown = table.training(tmp_path)
    for expected in (
        "test accuracy    77.10 % of tokens",
        "test loss        0.5000, perplexity 1.649",
        "best validation  loss 0.5000 at step 8",
    ):
        assert expected in shown, shown


def test_the_terminal_says_what_a_grpo_run_came_to(tmp_path: Path) -> None:
    planned(tmp_path, grpo())
    body = {"test": {"split": "test", "reward": 0.913, "pass@1": 0.7}, "best": {"step": 40, "value": 0.6}}
    (tmp_path / "result.json").write_text(json.dumps(body))
    shown = table.training(tmp_path)
    for expected in ("test pass@1", "70.00 %", "0.9130", "reward 0.6000 at step 40"):
        assert expected in shown, shown


def test_a_validation_without_a_loss_is_followed(tmp_path: Path) -> None:
    language_pages.write_metrics(tmp_path, language_pages.grpo_lines())
    tail = Tail(tmp_path / "metrics.jsonl")
    tail.poll()
    assert tail.validation["val_reward"] == pytest.approx(0.9)
    assert tail.last["step"] == 60


def test_what_a_model_writes_is_never_markup(tmp_path: Path) -> None:
    planned(tmp_path, grpo())
    language_pages.write_completions(tmp_path / "completions.parquet")
    for text in (page(tmp_path), page(language_pages.write_evaluation(tmp_path / "evaluations/1"))):
        assert "<script>alert" not in text
        assert "<img src=x" not in text
        assert "&lt;img src=x" in text


@pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1" + bytes(40) + b"PAR1"])
def test_completions_that_are_being_written_are_left_out(tmp_path: Path, content: bytes) -> None:
    planned(tmp_path, grpo())
    (tmp_path / "completions.parquet").mkdir()
    (tmp_path / "completions.parquet/step-000001.parquet").write_bytes(content)
    assert "Best rewards" not in page(tmp_path)


def test_an_evaluation_has_a_page_and_is_listed_on_its_runs(tmp_path: Path) -> None:
    planned(tmp_path, grpo())
    directory = language_pages.write_evaluation(tmp_path / "evaluations/1")
    text = page(directory)
    said = words(text)
    for expected in (
        "pass@1 61.4 % 55.0 to 67.1 %",
        "Commonest answer 3.1 % always given",
        "8 completions each, temperature 0.600, up to 2,048 tokens, seed 3",
        "base · runs/reason/evaluations/1",
        "+11.4 points, 95 %: +5.0 to +18.0",
        "p = 0.00071: this one is better",
        "6 of 14, spread over all of them.",
        "6 of 26, spread over all of them.",
        "answer none found",
        "cut off 2.0 %",
    ):
        assert expected in said, expected
    solved = charts(text)["solved"]
    assert solved["data"][0]["x"] == [61.4, 88.3, 75]
    assert solved["data"][0]["error_x"]["arrayminus"] == pytest.approx([6.4, 4.3, 6])
    assert solved["data"][1]["x"] == [3.1]
    text = page(tmp_path)
    assert 'href="evaluations/1/report.html"' in text
    assert "pass@1 61.4 % (55.0 to 67.1), pass@8 88.3 %" in words(text)


def test_an_evaluation_may_lack_what_is_optional_and_nothing_else(tmp_path: Path) -> None:
    body = language_pages.evaluation() | {"majority_baseline": None, "compared_with": None}
    (tmp_path / "evaluation.json").write_text(json.dumps(body))
    said = words(page(tmp_path))
    assert "McNemar" not in said
    assert "Wrong" not in said
    del body["sampling"]
    (tmp_path / "evaluation.json").write_text(json.dumps(body))
    with pytest.raises(UserError, match="is not what this version of zerofit writes: sampling: Field required"):
        write_page(tmp_path)


@pytest.mark.parametrize(
    ("text", "cut"),
    [
        ("no reasoning", [("no reasoning", False)]),
        ("<think>a</think>b", [("<think>a</think>", True), ("b", False)]),
        ("a</think>b", [("a</think>", True), ("b", False)]),
        ("so: <think>a", [("so: ", False), ("<think>a", True)]),
        ("<think>a</think>b<think>c</think>", [("<think>a</think>", True), ("b", False), ("<think>c</think>", True)]),
        ("", []),
    ],
)
def test_reasoning_is_told_apart(text: str, cut: list[tuple[str, bool]]) -> None:
    assert pieces(text) == [Piece(*one) for one in cut]


@given(st.lists(st.sampled_from(["<think>", "</think>", "a", "\n", "<"]), max_size=12).map("".join))
def test_cutting_loses_nothing(text: str) -> None:
    assert "".join(piece.text for piece in pieces(text)) == text


def test_a_long_text_is_shortened_in_its_middle() -> None:
    (only,) = pieces("a" * MOST + "b" * MOST)
    assert len(only.text) < MOST + 40
    assert only.text.startswith("a")
    assert only.text.endswith("b")
    assert "6,000 characters" in only.text
