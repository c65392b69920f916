"""A rank whose GPU has no more memory: its own exit code, and no second try at the same."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from commands import Zygote

sys.path.append(str(Path(__file__).parents[1] / "e2e"))
from cli_runs import result, steps, tiny

MESSAGE = (
    "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 1 has a total capacity of 10.75 GiB of which 1.17 GiB is free."
)


@pytest.mark.parametrize("tries", [0, 2])
def test_a_run_that_has_no_more_memory_is_not_begun_again(zygote: Zygote, tmp_path: Path, tries: int) -> None:
    crash = {"run": "tiny", "rank": 1, "kind": "OutOfMemoryError", "message": MESSAGE}
    command = zygote.run("train", tiny(tmp_path), "--nproc", 2, "--auto-resume", tries, cwd=tmp_path, crash=crash)
    assert command.code == 3, command.said
    assert command.stderr.count("out of memory in forward: 2.00 GiB more could not be had") == 1
    assert result(tmp_path / "runs/tiny")["exit"] == "failed"


@pytest.mark.parametrize("saved", ["null", "1"])
def test_with_half_the_micro_batch_it_goes_on_to_the_same_losses(zygote: Zygote, tmp_path: Path, saved: str) -> None:
    words = ("train", tiny(tmp_path), "--nproc", 2, f"checkpoint.every_steps={saved}", "train.on_oom=retry")
    assert zygote.run(*words, "name=whole", cwd=tmp_path).code == 0
    crash = {"run": "tiny", "rank": 1, "kind": "OutOfMemoryError", "message": MESSAGE, "above": 4}
    command = zygote.run(*words, cwd=tmp_path, crash=crash)
    assert command.code == 0, command.said
    assert "runs/tiny goes on with train.micro_batch=4 (train.on_oom=retry)" in command.stderr
    assert ("goes on from step 1" in command.stdout) == (saved == "1")
    kept = json.loads((tmp_path / "runs/tiny/run.json").read_text())["batches"]
    assert (kept["micro"], kept["accumulation"], kept["global_batch"]) == (4, 2, 16)
    lost = [[step["loss"] for step in steps(tmp_path / "runs" / name)] for name in ("whole", "tiny")]
    assert lost[1] == pytest.approx(lost[0], rel=1e-6)
    assert len(lost[0]) == 6


def test_a_micro_batch_of_one_has_no_smaller_one(zygote: Zygote, tmp_path: Path) -> None:
    crash = {"run": "tiny", "rank": 0, "kind": "OutOfMemoryError", "message": MESSAGE}
    words = ("train", tiny(tmp_path), "--nproc", 2, "train.on_oom=retry", "train.micro_batch=2")
    command = zygote.run(*words, cwd=tmp_path, crash=crash)
    assert command.code == 3, command.said
    assert "goes on with train.micro_batch=1 " in command.stderr
    assert "no more memory with a micro-batch of 1: there is no smaller one" in command.stderr
