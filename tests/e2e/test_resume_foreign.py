"""`zerofit train RECIPE --resume DIR`, of another program's DeepSpeed checkpoint, on the command line."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from cli_runs import refused, steps, zerofit

sys.path.append(str(Path(__file__).parents[1] / "unit"))

from foreign_checkpoints import RECIPE, vit_weights, write_zero3


@pytest.mark.thorough
def test_a_new_run_goes_on_from_there(tmp_path: Path) -> None:
    (tmp_path / "vit.yaml").write_text(RECIPE)
    write_zero3(tmp_path / "program", vit_weights())
    wrong = zerofit("train", "vit.yaml", "train.max_steps=2", "--resume", "program", cwd=tmp_path)
    refused(wrong, "--resume", "stands at step 3, and the recipe has 2 in all")
    assert not (tmp_path / "runs").exists()
    done = zerofit("train", "vit.yaml", "strategy=zero2", "--resume", "program", "--nproc", "1", cwd=tmp_path)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    assert done.stdout.startswith("goes on from step 3: weights and AdamW moments of 24 parameters from ")
    assert "(zero3 on 2 ranks) are taken over by zero2 on 1 rank" in done.stdout
    assert [record["step"] for record in steps(tmp_path / "runs/vit")] == [4, 5, 6]
    assert [path.name for path in (tmp_path / "runs/vit/checkpoints").glob("step-*")] == ["step-000006"]
