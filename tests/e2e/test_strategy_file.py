"""A run whose strategy is a file of accelerate: the same losses as by name, and a run directory that needs no file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cli_runs import tiny, zerofit

pytestmark = pytest.mark.thorough


def losses(run: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (run / "metrics.jsonl").read_text().splitlines() if "loss" in line]


def test_a_written_file_trains_as_its_name_does(tmp_path: Path) -> None:
    recipe, words = str(tiny(tmp_path)), ("checkpoint.every_steps=3",)
    by_name = zerofit("train", recipe, "strategy=zero2", "run_dir=name", *words, cwd=tmp_path)
    assert by_name.returncode == 0, by_name.stderr
    written = zerofit("plan", recipe, "strategy=zero2", "--write-accelerate", "z.yaml", cwd=tmp_path)
    assert written.returncode == 0, written.stderr
    asked = ("strategy={accelerate: z.yaml}", "run_dir=file", *words)
    refused = zerofit("train", recipe, *asked, "--nproc", "1", cwd=tmp_path)
    assert (refused.returncode, (tmp_path / "file").exists()) == (2, False)
    assert "its file asks for 2 ranks (num_processes), and --nproc says 1" in refused.stderr
    by_file = zerofit("train", recipe, *asked, cwd=tmp_path)
    assert by_file.returncode == 0, by_file.stderr
    assert losses(tmp_path / "file") == losses(tmp_path / "name")
    spec = json.loads((tmp_path / "file" / "run.json").read_text())
    assert (spec["strategy"]["name"], spec["recipe"]["strategy"]["name"]) == ("zero2", None)
    (tmp_path / "z.yaml").unlink()
    (tmp_path / "z.deepspeed.json").unlink()
    again = zerofit("train", "--resume", "file@3", "--nproc", "1", cwd=tmp_path)  # of two micro-batches a step
    assert again.returncode == 0, again.stderr
    assert losses(tmp_path / "file") == pytest.approx(losses(tmp_path / "name"), rel=1e-6)
