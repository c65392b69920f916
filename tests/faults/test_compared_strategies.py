"""`zerofit compare` with real engines: figures, and what becomes of strategies that cannot run or do not survive."""

from __future__ import annotations

import json
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from commands import Zygote

from zerofit.prove import runs
from zerofit.prove.compare import compare_strategies

sys.path.append(str(Path(__file__).parents[1] / "e2e"))
from cli_runs import TINY, tiny

TORCH = (
    "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 1 has a total capacity of 10.75 GiB of which 1.17 GiB is free."
    " Including non-PyTorch memory, this process has 9.58 GiB memory in use. Of the allocated memory 8.50 GiB is"
    " allocated by PyTorch, and 512.00 MiB is reserved by PyTorch but unallocated."
)
WARM = TINY.replace("lr: 1e-3", "lr: 1e-3\n  warmup: {epochs: 1}").replace("max_steps: 6", "epochs: 2")


def body(directory: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((directory / "compare.json").read_text())
    return found


@pytest.fixture(scope="module")
def compared(zygote: Zygote, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where ddp and fsdp2 have been compared, on two ranks."""
    cwd = tmp_path_factory.mktemp("compared")
    words = (tiny(cwd, WARM), "--strategies", "ddp,fsdp2,zeropp", "--steps", 9)
    command = zygote.run("compare", *words, cwd=cwd)
    assert command.code == 0, command.said
    assert "[2/3] fsdp2 x2, about " in command.stdout
    assert all(len(line) <= 100 for line in command.stdout.partition("memory per rank")[2].splitlines())
    return cwd


def test_the_same_work_is_measured_under_each_strategy(compared: Path) -> None:
    found = body(compared / "runs" / "compare-tiny")
    ddp, fsdp2, zeropp = found["rows"]
    assert (found["baseline"], found["steps"], found["global_batch"], found["limit_gib"]) == ("ddp x2", 9, 16, None)
    assert (zeropp["status"], zeropp["samples_s"]) == ("refused", None)
    assert "CUDA kernels" in zeropp["why"]
    for row in (ddp, fsdp2):
        assert (row["status"], row["micro_batch"], row["accumulation"], row["ranks"]) == ("ok", 8, 1, 2)
        assert len(row["loss"]) == 9
        assert sum(row["memory"].values()) == pytest.approx(row["peak_allocated_gib"], rel=1e-3)
        assert row["host_gib"] > row["peak_allocated_gib"]
        assert row["samples_s_per_gpu"] == pytest.approx(row["samples_s"] / 2, rel=1e-4)
        assert row["tokens_s"] == pytest.approx(4 * row["samples_s"], rel=1e-4)  # four patches an image
        assert 0 < row["step_ms_p50"] <= row["step_ms_p99"]
        for name in ("exposed_communication_share", "optimizer_share", "data_share"):
            assert 0 < row[name] < 1, name
        for name in ("peak_reserved_gib", "mfu", "scaling_efficiency", "predicted_gib", "max_micro_batch"):
            assert row[name] is None, name
    assert ddp["loss_deviation"] is None
    assert fsdp2["loss_deviation"] < 1e-6
    assert fsdp2["memory"]["weights"] == pytest.approx(ddp["memory"]["weights"] / 2, rel=0.1)
    assert ddp["memory"]["optimizer"] == pytest.approx(2 * ddp["memory"]["weights"], rel=0.05)


def test_its_runs_are_ordinary_ones_that_save_and_test_nothing(compared: Path) -> None:
    for name in ("ddp-x2", "fsdp2-x2"):
        run = compared / "runs" / "compare-tiny" / name
        assert not list(run.glob("checkpoints/step-*"))
        assert "test" not in json.loads((run / "result.json").read_text())
        recipe = json.loads((run / "run.json").read_text())["recipe"]
        assert (recipe["train"]["max_steps"], recipe["profile"]["steps"]) == (9, [7, 9])
        assert recipe["optimizer"]["warmup"]["steps"] == 9  # an epoch is longer


def test_runs_that_are_there_are_compared_without_running_them(compared: Path, zygote: Zygote) -> None:
    runs = [f"runs/compare-tiny/{name}" for name in ("fsdp2-x2", "ddp-x2")]
    command = zygote.run("compare", *runs, "--output", "again", cwd=compared)
    assert command.code == 0, command.said
    first = {row["label"]: row for row in body(compared / "runs" / "compare-tiny")["rows"]}
    for row in body(compared / "again")["rows"]:
        assert row["samples_s"] == first[row["label"]]["samples_s"]
        assert (compared / "again" / row["run"] / "run.json").exists()
    assert "| fsdp2 x2 |" in (compared / "again" / "compare.md").read_text()
    assert "--steps" in zygote.run("compare", *runs, "--steps", 5, cwd=compared).refused()


def test_a_strategy_out_of_memory_is_a_row_and_so_is_a_crash(zygote: Zygote, tmp_path: Path) -> None:
    words = ("compare", tiny(tmp_path), "--strategies", "ddp,single", "--steps", 4, "--no-profile")
    crash = {"run": "ddp-x2", "rank": 1, "kind": "OutOfMemoryError", "message": TORCH}
    command = zygote.run(*words, cwd=tmp_path, crash=crash)
    assert command.code == 0, command.said
    ddp, single = body(tmp_path / "runs" / "compare-tiny")["rows"]
    assert (ddp["status"], ddp["needed_gib"], ddp["samples_s"]) == ("out of memory", 10.5, None)
    assert "2.00 GiB" in ddp["why"]
    assert (single["status"], single["exposed_communication_share"], single["loss_deviation"]) == ("ok", None, None)
    crash |= {"kind": "ValueError", "message": "no such thing"}
    command = zygote.run(*words[:3], "ddp", *words[4:], cwd=tmp_path, crash=crash)
    assert command.code == 1, command.said
    (row,) = body(tmp_path / "runs" / "compare-tiny-2")["rows"]
    assert row["status"] == "failed"
    assert "no such thing" in row["why"]
    assert (tmp_path / row["why"].rpartition("its log: ")[2]).exists()


def test_ctrl_c_ends_it_with_what_was_measured(zygote: Zygote, tmp_path: Path) -> None:
    words = (tiny(tmp_path), "train.micro_batch=1", "--strategies", "single,ddp", "--gpus", "1", "--steps", 30)
    with zygote.start("compare", *words, "--no-profile", cwd=tmp_path) as command:
        directory = tmp_path / "runs" / "compare-tiny"
        begun = directory / "ddp-x1" / "metrics.jsonl"
        command.await_(lambda: begun.exists() and begun.stat().st_size > 0)
        os.kill(command.pid, signal.SIGINT)
        assert command.wait() == 4, command.said
    assert [row["label"] for row in body(directory)["rows"]] == ["single x1"]
    assert "interrupted in ddp x1" in command.stdout
    assert not list(directory.glob("*/checkpoints/step-*"))


def test_a_signal_that_finds_a_run_done_ends_the_comparison_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    conduct = runs.conduct
    monkeypatch.setattr(runs, "conduct", lambda *given: replace(conduct(*given), late=int(signal.SIGTERM)))
    monkeypatch.chdir(tmp_path)
    code, directory = compare_strategies(
        tiny(tmp_path), ["train.micro_batch=1"], strategies="single,ddp", gpus="1", steps=3
    )
    assert code == 4
    assert [row["label"] for row in body(directory)["rows"]] == ["single x1"]
