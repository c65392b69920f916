"""`--resume` under another strategy and on another number of ranks, on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cli_runs import refused, steps, tiny, trained, zerofit


@pytest.fixture(scope="module")
def cwd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("takeover")
    trained(str(tiny(directory)), "strategy=zero2", "checkpoint.every_steps=3", "--nproc", "2", cwd=directory)
    return directory


def test_only_what_spreads_the_work_may_change(cwd: Path) -> None:
    before = (cwd / "runs/tiny/run.json").read_bytes()
    changed = zerofit("train", "--resume", "runs/tiny@3", "strategy=ddp", "optimizer.lr=1e-2", cwd=cwd)
    assert changed.returncode == 2
    assert changed.stderr.splitlines()[1:] == ["error: optimizer.lr: 0.001 -> 0.01"]
    impossible = zerofit("train", "--resume", "runs/tiny@3", "--nproc", "3", cwd=cwd)
    refused(impossible, "train.global_batch 16 is not a multiple of micro_batch 8 x 3 ranks")
    assert (cwd / "runs/tiny/run.json").read_bytes() == before


def test_a_run_goes_on_elsewhere_with_the_same_losses(cwd: Path) -> None:
    run = cwd / "runs" / "tiny"
    whole = [record["loss"] for record in steps(run)]
    done = zerofit("train", "--resume", "runs/tiny@3", "strategy=fsdp2", "--nproc", "1", cwd=cwd)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    assert "goes on from step 3: what zero2 on 2 ranks wrote is taken over by fsdp2 on 1 rank" in done.stdout
    assert [record["loss"] for record in steps(run)] == pytest.approx(whole, rel=1e-6)
    now, earlier = (json.loads((run / name).read_text()) for name in ("run.json", "earlier/run-000003.json"))
    assert [spec["recipe"]["strategy"]["name"] for spec in (now, earlier)] == ["fsdp2", "zero2"]
    assert not (run / "deepspeed.json").exists()
    facts = [json.loads((run / f"checkpoints/step-00000{step}/manifest.json").read_text())["facts"] for step in (3, 6)]
    assert [(one["strategy"], one["world_size"]) for one in facts] == [("zero2", 2), ("fsdp2", 1)]
