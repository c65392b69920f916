"""A ViT on real images: ddp and zero3 see the same losses."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

DATA = Path(__file__).parents[2].parent / "shared" / "data" / "images" / "cifar10" / "cifar10_train_10000.zip"
pytestmark = [pytest.mark.real, pytest.mark.skipif(not DATA.is_file(), reason="no real data beside the repository")]


def losses(strategy: str, directory: Path) -> list[float]:
    run = directory / strategy
    overrides = [
        f"data.path={DATA}",
        "data.workers=0",
        "data.limit=640",
        "data.validation=0.02",  # of 10,000
        "train.epochs=1",
        "optimizer.lr=1e-4",
        "evaluate.every_epochs=null",
        "evaluate.micro_batch=100",
        f"strategy={strategy}",
        "strategy.precision=fp32",
        f"run_dir={run}",
    ]
    command = [sys.executable, "-m", "zerofit", "train", "vit-tiny-cifar10", *overrides, "--nproc", "2"]
    env = {**os.environ, "ZEROFIT_DEVICE": "cpu", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads((run / "result.json").read_text())["test"]["samples"] == 200
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if "loss" in line]


@pytest.mark.thorough
def test_ddp_and_zero3_end_at_the_same_loss(tmp_path: Path) -> None:
    ddp, zero3 = losses("ddp", tmp_path), losses("zero3", tmp_path)
    assert len(ddp) == 10
    assert zero3 == pytest.approx(ddp, rel=1e-5)
    assert ddp[-1] < ddp[0]
