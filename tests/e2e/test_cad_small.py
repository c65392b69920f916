"""`zerofit train cad-small` as it is shipped: what a small CAD-MLLM has learnt of parts that it never saw. Minutes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cli_runs import zerofit

pytestmark = pytest.mark.thorough


def test_parts_come_out_as_they_are_told(tmp_path: Path) -> None:
    done = zerofit("train", "cad-small", "--nproc", "2", cwd=tmp_path, timeout=1500)
    assert done.returncode == 0, done.stdout[-1500:] + done.stderr[-3000:]
    run = tmp_path / "runs/cad-small/03-images"
    figures = json.loads((run / "evaluations/1/evaluation.json").read_text())["figures"]
    text, none = figures["text"], figures["none"]
    assert text["shapes"] == 80
    assert text["parsed"]["value"] >= 0.9
    assert text["valid"]["value"] >= 0.8
    if none["chamfer"] is None:  # told nothing it always says the same, which by a processor's rounding may be no shape
        assert none["valid"]["high"] < text["valid"]["low"] / 4
    else:
        assert text["chamfer"]["high"] < none["chamfer"]["low"] / 4
    assert (run.parent / "report.html").is_file()
