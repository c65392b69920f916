"""A run whose recipe leaves strategy and micro-batch to the planner: on a CPU that of ddp, and it keeps to it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cli_runs import steps, zerofit

AUTO = ("strategy=auto", "train.micro_batch=auto", "strategy.activation_checkpointing=auto")
SHORT = ("train.max_steps=4", "train.epochs=null", "checkpoint.every_steps=2", "evaluate.at_end=false")
SAID = "auto: ddp, micro-batch 32 x 1, no activation checkpointing: by rule, for nothing is predicted on a CPU"


def trained(cwd: Path, name: str, *words: str) -> Path:
    done = zerofit("train", "digits", *SHORT, *words, f"run_dir={name}", "--nproc", "2", cwd=cwd)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    assert (SAID in done.stdout) == (name == "auto")
    return cwd / name


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Of auto, and of what it comes to said out loud."""
    cwd = tmp_path_factory.mktemp("auto")
    named = ("strategy=ddp", "train.micro_batch=32", "strategy.activation_checkpointing=none")
    return trained(cwd, "auto", *AUTO), trained(cwd, "named", *named)


def test_auto_is_the_run_of_what_it_comes_to(runs: tuple[Path, Path]) -> None:
    auto, named = (
        [{key: line[key] for key in ("step", "loss", "grad_norm", "lr")} for line in steps(run)] for run in runs
    )
    assert len(auto) == 4
    assert auto == named, "to the last bit"


def test_run_json_says_what_was_left_open_and_what_came_of_it(runs: tuple[Path, Path]) -> None:
    spec = json.loads((runs[0] / "run.json").read_text())
    assert spec["recipe"]["strategy"]["name"] == spec["recipe"]["train"]["micro_batch"] == "auto"
    assert (spec["strategy"]["name"], spec["batches"]["micro"], spec["batches"]["accumulation"]) == ("ddp", 32, 1)
    assert f"auto: {spec['choice']['why']}" == SAID
    assert SAID.removeprefix("auto: ") in (runs[0] / "report.html").read_text()
    assert json.loads((runs[1] / "run.json").read_text())["choice"] is None


def test_the_run_goes_on_as_it_was_begun(runs: tuple[Path, Path]) -> None:
    """On other ranks, too: after the tests above, for it goes on in place."""
    auto, named = runs
    done = zerofit("train", "--resume", "auto@2", "--nproc", "1", cwd=auto.parent)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    kept = "kept as the run was begun: ddp, micro-batch 32 x 2, no activation checkpointing"
    assert f"auto: {kept}" in done.stdout
    spec = json.loads((auto / "run.json").read_text())
    assert (spec["batches"]["ranks"], spec["choice"]["why"]) == (1, kept)
    assert json.loads((auto / "earlier" / "run-000002.json").read_text())["choice"]["why"] in SAID
    assert [line["loss"] for line in steps(auto)] == pytest.approx([line["loss"] for line in steps(named)], rel=1e-6)


@pytest.mark.thorough
def test_a_checkpoint_is_converted_of_what_was_chosen(runs: tuple[Path, Path]) -> None:
    cwd = runs[0].parent
    done = zerofit("convert", "auto@4", "--to", "zero2", "--world", "4", "--output", "moved", cwd=cwd)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    spec = json.loads((cwd / "moved" / "run.json").read_text())
    assert (spec["strategy"]["name"], spec["batches"]["micro"], spec["batches"]["ranks"]) == ("zero2", 16, 4)
    assert (spec["recipe"]["strategy"]["name"], spec["recipe"]["train"]["micro_batch"]) == ("zero2", "auto")


def test_a_plan_says_the_same(tmp_path: Path) -> None:
    assert SAID in zerofit("plan", "digits", *AUTO, cwd=tmp_path).stdout
    (stage,) = json.loads(zerofit("plan", "digits", *AUTO, "--json", cwd=tmp_path).stdout)["stages"]
    assert f"auto: {stage['choice']['why']}" == SAID
