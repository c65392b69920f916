"""From plan to exit code on this machine, with ranks that are not started."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from zerofit.config.errors import UserError
from zerofit.config.schema import Recipe, Train
from zerofit.launch import dispatch, outer, rundir
from zerofit.launch.dispatch import Launch, default_ranks
from zerofit.launch.environment import World
from zerofit.launch.evaluation import other_data
from zerofit.launch.failure import Failure
from zerofit.launch.local import Outcome
from zerofit.plan.spec import Hardware

CPU = Hardware(device="cpu", count=1, name="x", memory_gib=1.0, capability=None, cpus=4)
GPUS = Hardware(device="cuda", count=4, name="x", memory_gib=80.0, capability=(9, 0), cpus=64)
RECIPE = {
    "name": "tiny",
    "model": {"kind": "vit", "shape": "vit-tiny"},
    "data": {"source": "folder", "path": "images"},
    "train": {"epochs": 1, "micro_batch": 4, "global_batch": 8},
    "optimizer": {"lr": 1e-3},
}


def test_default_ranks() -> None:
    assert [default_ranks("single", one) for one in (CPU, GPUS)] == [1, 1]
    assert [default_ranks("zero2", one) for one in (CPU, GPUS)] == [2, 4]
    assert default_ranks("ddp", CPU.model_copy(update={"cpus": 1})) == 1


@pytest.mark.parametrize(("micro", "whole", "ranks"), [(32, 64, 2), (16, 64, 4), (32, 96, 3), (64, 64, 1), (8, 15, 4)])
def test_default_ranks_divide_the_batch(micro: int, whole: int, ranks: int) -> None:
    assert default_ranks("zero2", GPUS, Train(epochs=1, micro_batch=micro, global_batch=whole)) == ranks


def test_ranks_that_lack_gpus_meet_on_the_cpu_to_hear_so() -> None:
    worlds = [World(0, size, 0, local, "h", 1) for size, local in ((4, 4), (5, 5), (8, 4))]
    total = GPUS.model_copy(update={"count": 8})
    devices = [outer._meeting_device(one, total if one.size == 8 else GPUS) for one in worlds]
    assert devices == ["cuda", "cpu", "cuda"]


def dispatched(
    run_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
    outcome: Outcome,
    debug: bool = False,
    made: tuple[Path, ...] | None = None,
) -> int:
    """Dispatch a run whose ranks end so."""
    monkeypatch.setattr(dispatch, "run_ranks", lambda *_: outcome)
    monkeypatch.setattr(dispatch, "detect", lambda: CPU)
    for name in ("RANK", "SLURM_STEP_ID"):
        monkeypatch.delenv(name, raising=False)

    def plan(hardware: Hardware, ranks: int | None) -> Launch:
        logs, result = run_dir / "logs", run_dir / "result.json"
        return Launch(run_dir, (), logs, result, ranks or 1, headline="starts", made=made)

    return dispatch.dispatch(plan, nproc=2, debug=debug, show=lambda _: print("table"))


def test_a_finished_run_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert dispatched(tmp_path, monkeypatch, Outcome()) == 0
    assert capsys.readouterr().out == "starts\ntable\n"


def test_a_crash_ends_with_its_own_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "".join(f"line {index}\n" for index in range(40)) + "ValueError: boom\n"
    crash = Outcome(failure=Failure(3, 0.0, user=False, message="ValueError: boom", traceback=text))
    assert dispatched(tmp_path, monkeypatch, crash) == 1
    said = capsys.readouterr().err
    assert said.startswith("rank 3 failed")
    assert "rank-3.log" in said
    assert said.endswith("ValueError: boom\n")
    assert "line 5\n" not in said
    result = json.loads((tmp_path / "result.json").read_text())
    assert (result["exit"], result["rank"], result["error"]) == ("failed", 3, "ValueError: boom")
    assert dispatched(tmp_path, monkeypatch, crash, debug=True) == 1
    assert "line 5\n" in capsys.readouterr().err


def test_a_users_error_in_a_rank_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torn = Outcome(failure=Failure(1, 0.0, user=True, message="3.png is torn", traceback="..."))
    with pytest.raises(UserError, match=r"3\.png is torn"):
        dispatched(tmp_path, monkeypatch, torn)


@pytest.mark.parametrize("begun", [None, "metrics.jsonl", "checkpoints/step-000001/manifest.json"])
def test_a_users_error_before_the_first_step_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, begun: str | None
) -> None:
    run_dir, made = rundir.make("vit", tmp_path / "runs" / "vit")
    for name in ("run.json", "logs/rank-0.log", begun):
        if name is not None:
            (run_dir / name).parent.mkdir(parents=True, exist_ok=True)
            (run_dir / name).write_text("x")
    wrong = Outcome(failure=Failure(1, 0.0, user=True, message="no such weights", traceback="..."))
    with pytest.raises(UserError, match="no such weights"):
        dispatched(run_dir, monkeypatch, wrong, made=made)
    assert any(tmp_path.iterdir()) == (begun is not None)


def test_an_interrupted_run_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert dispatched(tmp_path, monkeypatch, Outcome(signal=2)) == 130
    assert json.loads((tmp_path / "result.json").read_text())["exit"] == "interrupted"


@pytest.mark.parametrize(
    ("words", "fields"),
    [
        (["other"], {"source": "folder", "path": "other"}),
        (["data.source=cifar", "elsewhere"], {"source": "cifar", "path": "elsewhere"}),
    ],
)
def test_evaluation_on_other_data(words: list[str], fields: dict[str, Any]) -> None:
    recipe = Recipe.model_validate(RECIPE)
    data = other_data(recipe, words)
    assert data is not None
    assert {key: getattr(data, key) for key in fields} == fields
    assert other_data(recipe, []) is None
    with pytest.raises(UserError, match=r"train\.seed: 0 -> 1"):
        other_data(recipe, ["train.seed=1"])
