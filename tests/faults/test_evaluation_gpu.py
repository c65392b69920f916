"""`zerofit eval` on GPUs: both engines write the same, and what is given for the memory is enough."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from language_models import save_model, save_problems

from zerofit.measure.rollouts import read_rollouts

pytestmark = pytest.mark.gpu


def evaluated(cwd: Path, output: str, *words: str) -> Path:
    command = [sys.executable, "-m", "zerofit", "eval", "model", "--data", "problems.jsonl", "--output", output, *words]
    environ = {name: value for name, value in os.environ.items() if name not in ("ZEROFIT_DEVICE", "DS_ACCELERATOR")}
    done = subprocess.run(command, cwd=cwd, env=environ, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    return cwd / output


def test_both_engines_write_the_same_in_float32(tmp_path: Path) -> None:
    save_model(tmp_path / "model")
    save_problems(tmp_path / "problems.jsonl", 40)
    words = ("--dtype", "fp32", "--k", "1,4", "--max-tokens", "64")
    graph, hf = (
        read_rollouts(evaluated(tmp_path, engine, *words, "--engine", engine) / "rollouts.parquet")
        for engine in ("graph", "hf")
    )
    alike = sum(one.completion == other.completion for one, other in zip(graph, hf, strict=True))
    print(f"\n{alike} of {len(graph)} completions are alike")
    assert alike / len(graph) >= 0.95
    one_rank = evaluated(tmp_path, "one", *words, "--nproc", "1")
    assert read_rollouts(one_rank / "rollouts.parquet") == graph


def test_16_bits_are_the_default(tmp_path: Path) -> None:
    save_model(tmp_path / "model")
    save_problems(tmp_path / "problems.jsonl", 20)
    result = json.loads((evaluated(tmp_path, "out", "--max-tokens", "32") / "evaluation.json").read_text())
    assert result["dtype"] in ("bf16", "fp16")
    assert result["figures"]["problems"] == 20
