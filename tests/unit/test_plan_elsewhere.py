"""`zerofit plan` for other machines: its table, its JSON, its page, its grid, and what it refuses."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from plan_examples import CPU, refuse_zero3
from played_by_formulas import play_by_formulas
from typer.testing import CliRunner, Result

from zerofit import cli
from zerofit.config.load import load_recipe
from zerofit.launch import planning, predicting
from zerofit.launch.asked import HERE
from zerofit.launch.searching import axes
from zerofit.launch.worker import beside_prediction
from zerofit.plan.answer import Plan, Search
from zerofit.plan.files import read_spec, write_spec
from zerofit.plan.prediction import Memory, Unpredicted
from zerofit.plan.spec import RunSpec
from zerofit.report.outlook import line
from zerofit.report.page import write_page
from zerofit.report.table import training


@pytest.fixture(autouse=True)
def _laptop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without GPUs and without data."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(planning, "detect", lambda: CPU)


@pytest.fixture
def steps_played(monkeypatch: pytest.MonkeyPatch) -> list[RunSpec]:
    """Steps that were played through: here by formulas that call themselves exact."""
    return play_by_formulas(monkeypatch)


def call(*words: str) -> Result:
    return CliRunner().invoke(cli.app, ["plan", *words])


def answer(*words: str) -> Plan:
    done = call(*words, "--json")
    assert done.exit_code == 0, done.output
    return Plan.model_validate_json(done.stdout)


def test_the_table_has_every_strategy_and_marks_the_recipes() -> None:
    done = call("qwen3-8b-sft", "--gpus", "8", "--gpu-memory", "80GiB", "--quick")
    assert done.exit_code == 0, done.output
    rows = done.output.splitlines()
    (own,) = (row for row in rows if row.startswith("* zero3 "))
    assert own.endswith("fits")
    (ddp,) = (row for row in rows if row.startswith("  ddp "))
    assert ddp.endswith("does not fit")
    assert "memory of GPU of 80 GiB (Ampere assumed), 80 GiB; by formulas, within 15 %" in rows
    assert (
        "data not found (data.path: data/reasoning does not exist): planned for samples of 8,192 tokens" in done.output
    )
    assert "zero3 is lowered most by strategy=zero3+offload_all: ~" in done.output


def test_json_is_what_the_models_say() -> None:
    (stage,) = answer("qwen3-8b-sft", "--gpus", "2", "--gpu", "h200", "--host-memory", "256GiB", "--quick").stages
    assert (stage.hardware.name, stage.hardware.count, stage.host_gib, stage.ranks) == ("NVIDIA H200", 2, 256.0, 2)
    assert [one.strategy for one in stage.strategies if one.own] == ["zero3"]
    by_name = {one.strategy: one.prediction for one in stage.strategies}
    offloaded = by_name["zero3+offload_optimizer"]
    assert offloaded is not None
    assert offloaded.fit.host_verdict == "fits"
    assert offloaded.fit.host_needed_gib > 100
    assert by_name["zero3"] is not None
    assert len(by_name["zero3"].levers) == 3
    assert all(one.prediction is None or one.prediction.speed is None for one in stage.strategies)


def test_a_step_of_the_recipes_own_strategy_is_played_through(steps_played: list[RunSpec]) -> None:
    (stage,) = answer("vit-huge-food101", "--gpus", "2", "--gpu", "a100").stages
    assert [spec.strategy.name for spec in steps_played] == ["ddp"]
    exact = {one.strategy: one.prediction.memory.exact for one in stage.strategies if one.prediction is not None}
    assert [name for name, is_exact in exact.items() if is_exact] == ["ddp"]
    (stage,) = answer("vit-huge-food101", "--gpus", "2", "--gpu", "a100", "--exact").stages
    assert {one.prediction.memory.exact for one in stage.strategies if one.prediction is not None} == {True}


def test_where_no_step_can_be_played_formulas_serve(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(spec: RunSpec, observers: Sequence[Any] = ()) -> Memory:
        raise Unpredicted("a step could not be played through")

    monkeypatch.setattr(predicting, "play", fails)
    monkeypatch.setattr(predicting.Timed, "speed", lambda self, spec: None)
    (stage,) = answer("vit-huge-food101", "--gpus", "2", "--gpu", "a100").stages
    assert all(one.prediction is not None and not one.prediction.memory.exact for one in stage.strategies)


def test_a_strategy_that_the_recipe_cannot_have_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zerofit.plan.build._check_strategy", refuse_zero3)
    (stage,) = answer("qwen3-8b-cifar10", "strategy.compile=true", "--gpus", "2", "--gpu", "h200", "--quick").stages
    refused = next(one for one in stage.strategies if one.strategy == "zero3")
    assert refused.prediction is None
    assert refused.reason == "zero3 cannot do it"
    own = next(one.prediction for one in stage.strategies if one.own)
    assert own is not None
    assert own.memory.not_modelled


def test_a_page_shows_bars_against_the_card() -> None:
    done = call("deepseek-r1-7b", "--gpus", "2", "--gpu", "rtx-2080-ti", "--quick", "--html", "pages/plan.html")
    assert done.output.endswith("written: pages/plan.html\n")
    text = Path("pages/plan.html").read_text()
    assert "11 GiB of the card" in text
    assert "zero2 (the recipe" in text
    refused = call("deepseek-r1-7b", "--gpus", "2", "--gpu", "rtx-2080-ti", "--quick", "--html", "pages/plan.html")
    assert (refused.exit_code, "give --force to write over it" in refused.output) == (2, True)


def test_a_grid_says_what_is_needed(steps_played: list[RunSpec]) -> None:
    machines = ["--host-memory", "64GiB", "gpus=1,8", "gpu-memory=11,24,141"]
    words = ["qwen3-8b-sft", "--search", *machines, "--quick"]
    found = Search.model_validate_json(call(*words, "--json").stdout)
    assert [(cell.gpus, cell.memory_gib) for cell in found.cells] == [
        (count, size) for count in (1, 8) for size in (11.0, 24.0, 141.0)
    ]
    cells = {(cell.gpus, cell.memory_gib): cell for cell in found.cells}
    assert cells[1, 11.0].strategy is None, "what is offloaded fits the card, and not the host"
    assert cells[8, 141.0].strategy in ("ddp", "zero1")
    lines = call(*words).output.splitlines()
    assert lines[1].split() == ["GPUs", "11", "GiB", "24", "GiB", "141", "GiB"]
    assert not steps_played
    assert call(*words[:-1]).exit_code == 0
    assert "ddp" not in {spec.strategy.name for spec in steps_played}, "far from fitting"


def test_axes_are_told_apart_from_overrides() -> None:
    assert axes(["gpus=1..3", "train.epochs=1", "gpu-memory=24GiB,11"]) == ([1, 2, 3], [11.0, 24.0], ["train.epochs=1"])
    assert axes([]) == ([1, 2, 4, 8], [11.0, 24.0, 48.0, 80.0, 141.0], [])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--gpu", "h300"], "--gpu: 'h300' is not known; did you mean h200?"),
        (["--gpu-memory", "11GB"], "--gpu-memory: 11GB is no size"),
        (
            ["--gpus", "3", "--nproc", "3"],
            "is not a multiple of micro_batch 1 x 3 ranks = 3: the nearest that is one is 63",
        ),
        (["--gpu-memory", "1GiB"], "a card of 1 GiB cannot hold the weights of one layer"),
        (["--gpu", "t4"], "strategy.precision bf16 needs compute capability 8.0, and Tesla T4 has 7.5"),
        (["--search", "gpus=a"], "--search: gpus=a is no number of cards"),
        (["--search", "gpus=9..1"], "--search: gpus names 0 values"),
        (["--search", "gpu-memory=x"], "gpu-memory: x is no size"),
        (["--search", "--gpus", "8"], "--gpus is for one machine; --search takes gpus=1..8"),
        (["--quick", "--exact"], "--quick and --exact: give one of them"),
        (["model.pretrainde=x", "--gpus", "1"], "unknown field; did you mean pretrained?"),
    ],
)
def test_what_cannot_be_asked_is_one_line(words: list[str], said: str) -> None:
    done = call("qwen3-8b-sft", *words)
    assert (done.exit_code, done.output.count("\n")) == (2, 1), done.output
    assert done.output.startswith("error: ")
    assert said in done.output


def test_a_cpu_has_no_card_to_fit() -> None:
    found, words = planning.plan("vit-tiny-cifar10", asked=HERE)
    assert found.stages[0].strategies == ()
    assert words.endswith("memory is predicted for GPUs: say which, for example --gpus 2 --gpu-memory 24GiB")


def test_a_draft_is_shown_before_steps_are_played(steps_played: list[RunSpec]) -> None:
    seen: list[str] = []
    show: Callable[[str], None] = seen.append
    _, words = planning.plan("vit-huge-food101", asked=planning.Asked(2, "a100"), draft=show)
    assert len(seen) == 1
    assert "by formulas" in seen[0]
    assert "a step played through" in words


def test_a_runs_prediction_is_kept_beside_what_was_measured() -> None:
    (stage,) = answer("vit-huge-food101", "--gpus", "2", "--gpu", "a100", "--quick").stages
    own: Any = stage.strategies[0].prediction
    told = own.against(own.peak_gib * 1.25)
    assert told == {"peak_gib": own.peak_gib, "measured_gib": own.peak_gib * 1.25, "error": -0.2}
    assert json.loads(json.dumps(told)) == told


def test_a_runs_page_and_table_show_both() -> None:
    staged = planning.staged_plan(load_recipe("vit-huge-food101"), planning.Asked(2, "a100"), None, follows=False)
    spec, why = predicting.predicted(staged.spec, 512.0)
    assert (why, spec.prediction is not None) == (None, True)
    write_spec(spec)
    assert read_spec(spec.run_dir).prediction == spec.prediction
    (told,) = line(spec)
    assert told == "memory: about 23.3 GiB of 80 a GPU, at its fullest in backward: fits"
    body = {"peak_alloc_gib": 24.0, "holds": {"weights": 2.4, "gradients": 2.4, "optimizer": 4.7, "rest": 14.5}}
    figures = beside_prediction(spec, body)
    (spec.run_dir / "result.json").write_text(json.dumps({**figures, "exit": "finished", "wall_s": 1.0}))
    assert "24.00 GiB per rank; 23.34 were predicted (-2.7 %)" in training(spec.run_dir)
    page = write_page(spec.run_dir).read_text()
    assert "23.34 predicted" in page
    assert "24.00 GiB, off by -2.7 %" in page


def test_no_run_is_refused_for_what_cannot_be_predicted() -> None:
    said = load_recipe("qwen3-8b-cifar10", ["model.pretrained=someone/some-model"])
    spec = planning.staged_plan(said, planning.Asked(4, "h200"), None, follows=False).spec
    same, why = predicting.predicted(spec, 512.0)
    assert same is spec
    assert why is not None
    assert why.startswith("memory: not predicted: the sizes of someone/some-model are not at hand")
