"""`zerofit plan` on every shipped recipe, on a machine with no data, no GPU and no hub."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from cli_runs import environment

from zerofit.config.load import load_job, recipe_names
from zerofit.launch.asked import Asked
from zerofit.launch.planning import plan

STAGES = [(name, number) for name in recipe_names() for number in range(1, len(load_job(name).stages) + 1)]


@pytest.mark.parametrize(("name", "number"), STAGES)
def test_every_shipped_recipe_is_planned_anywhere(
    name: str, number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ZEROFIT_DEVICE", "cpu")
    found, words = plan(name, stage=number, asked=Asked(4, "h200", None, "512GiB"), played="none")
    (stage,) = found.stages
    own = next(one for one in stage.strategies if one.own)
    assert own.prediction is not None, own.reason
    assert 0 < own.prediction.peak_gib < 141
    assert own.prediction.fit.verdict == "fits"
    assert f"\n* {own.strategy} " in words
    made = [one.prediction for one in stage.strategies if one.prediction is not None]
    assert len(made) >= 7
    assert all(sum(one.memory.split.values()) == pytest.approx(one.peak_gib, abs=0.02) for one in made)
    assert not list(tmp_path.iterdir())


def test_what_formulas_say_needs_no_torch(tmp_path: Path) -> None:
    program = (
        "import sys; from zerofit.launch.planning import plan; from zerofit.launch.asked import Asked; "
        "_, words = plan('qwen3-8b-sft', asked=Asked(8), played='none'); "
        "assert '* zero3' in words; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, env=environment(), check=True, timeout=400)
