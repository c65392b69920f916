"""`zerofit compare` as a user starts it: every engine's memory adds up to what is known of it, and the Python API."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from cli_runs import environment, tiny, zerofit

pytestmark = pytest.mark.thorough
GIB = 2**30
BYTES = {
    "ddp": (4, 4, 8),
    "zero1": (4, None, 12 / 2),
    "zero2": (4, None, 12 / 2),
    "zero3": (4 / 2, 4 / 2, 12 / 2),
    "fsdp2": (4 / 2, 4 / 2, 8 / 2),
}
"""Of a parameter, on each of two ranks: weight, gradient, optimizer, in fp32. Under ZeRO-1 and 2 which gradients are
whole by the optimizer's step depends on where a layer lies."""


def test_memory_is_counted_as_each_engine_spreads_it(tmp_path: Path) -> None:
    asked = ("--strategies", ",".join(BYTES), "--gpus", "2", "--steps", "6", "--output", "out")
    done = zerofit("compare", "digits", *asked, cwd=tmp_path)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    rows = json.loads((tmp_path / "out" / "compare.json").read_text())["rows"]
    assert [row["strategy"] for row in rows] == list(BYTES)
    parameters = rows[0]["memory"]["weights"] * GIB / 4
    for row in rows:
        for kind, wanted in zip(("weights", "gradients", "optimizer"), BYTES[row["strategy"]], strict=True):
            found = row["memory"][kind] * GIB / parameters
            if wanted is None:
                assert 4 / 2 * 0.99 < found <= 4 * 1.01, (row["label"], kind)
            else:
                assert found == pytest.approx(wanted, rel=0.01), (row["label"], kind)
        assert row["loss_deviation"] is None or row["loss_deviation"] < 1e-6
        assert 0 < row["exposed_communication_share"] < 1
        assert 0 < row["optimizer_share"] < 1


def test_from_python(tmp_path: Path) -> None:
    program = (
        "import zerofit; rows = zerofit.compare('tiny.yaml', ['single'], steps=4, enable_profiling=False, "
        "**{'train.micro_batch': 4}); print(rows[0]['status'], rows[0]['micro_batch'], len(rows[0]['loss']))"
    )
    tiny(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "ok 4 4"
