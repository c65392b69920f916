"""A traced run on CPUs and what `zerofit trace` says of it, as a user gets it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cli_runs import refused, tiny, trained, zerofit

pytestmark = pytest.mark.thorough


def test_a_traced_run(tmp_path: Path) -> None:
    recipe = tiny(tmp_path)
    beyond = zerofit("train", str(recipe), "profile.steps=[3, 9]", cwd=tmp_path)
    refused(beyond, "profile.steps: step 9 is beyond the run's last, 6")
    assert not (tmp_path / "runs").exists()
    run = trained(str(recipe), "profile.steps=[3, 4]", cwd=tmp_path)
    assert sorted(path.name for path in (run / "profile").iterdir()) == ["rank-0.json.gz", "rank-1.json.gz"]
    merged = tmp_path / "all.json.gz"
    said = zerofit("trace", str(run), "--merge", str(merged), "--fail-if", "idle>100%", cwd=tmp_path)
    assert (said.returncode, said.stderr) == (0, ""), said.stderr
    assert said.stdout.startswith("2 of 2 ranks on CPUs, steps 3, 4\n")
    assert "not there: no rank has events of a GPU" in said.stdout
    assert json.loads((run / "profile" / "trace.json").read_text())["ranks"][1]["device"] == "cpu"
    assert merged.exists()
    gate = zerofit("trace", str(run / "profile"), "--fail-if", "idle>0.001%", cwd=tmp_path)
    assert gate.returncode == 3
    assert gate.stderr.startswith("failed: idle > 0.001 %: rank 0: ")
    refused(zerofit("trace", str(run), "--fail-if", "idle", cwd=tmp_path), "is to be a figure, < or >, and per cent")
    refused(zerofit("trace", str(tmp_path / "nowhere"), cwd=tmp_path), "nowhere is not there: name a run")
