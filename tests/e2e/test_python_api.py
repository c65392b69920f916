"""Training from Python: the numbers of `zerofit train`, under any strategy, and a guide that runs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from cli_runs import environment, steps, trained
from safetensors.torch import load_file

import zerofit
from zerofit.plan.files import read_spec

RECIPE = """\
name: tiny
model: {kind: patch_lm, shape: qwen3-tiny, image_size: 8, patch_size: 4}
data: {source: digits, limit: 320}
train: {epochs: 1, micro_batch: 16, global_batch: 32}
optimizer: {lr: 3e-4, weight_decay: 0.1}
strategy: ddp
"""
GUIDE = Path(__file__).parents[2] / "docs" / "python-api.md"


@pytest.fixture(autouse=True)
def _cpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in set(os.environ) - set(environment()):
        monkeypatch.delenv(name)
    for name, value in environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)


def run(method: str, **changes: Any) -> dict[str, Any]:
    train, test = zerofit.create_data_loaders(batch_size=16, limit=320)
    fields = {"model.patch_size": 4, "optimizer.weight_decay": 0.1, **changes}
    return zerofit.run_training_experiment(method, "qwen3-tiny", train, test, **fields)


@pytest.mark.thorough
def test_strategies_and_the_command_line_agree(tmp_path: Path) -> None:
    before = dict(os.environ)
    first, second = run("ddp"), run("zero3", run_dir=tmp_path / "sharded")
    assert dict(os.environ) == before
    (tmp_path / "tiny.yaml").write_text(RECIPE)
    told = steps(trained("tiny.yaml", "--nproc", "2", cwd=tmp_path))
    losses = [line["loss"] for line in told]
    assert len(losses) == first["steps"] == 10
    assert [line["loss"] for line in first["history"]] == pytest.approx(losses, rel=1e-6)
    assert [line["loss"] for line in second["history"]] == pytest.approx(losses, rel=1e-6)
    assert first["accuracy"] == second["accuracy"] > 0.2
    assert first["loss"] == pytest.approx(second["loss"], rel=1e-6)
    assert (second["strategy"], second["world_size"], second["run_dir"]) == ("zero3", 2, str(tmp_path / "sharded"))
    assert Path(first["run_dir"]) == tmp_path / "runs" / "digits-ddp"
    assert min(first[name] for name in ("peak_memory_gib", "samples_per_second", "wall_seconds", "top5")) > 0
    assert "profile" not in first


def test_the_model_shown_is_the_one_that_training_begins_with() -> None:
    # A rate so small that no weight moves: the checkpoint holds what the run started with.
    done = run("fsdp", world_size=1, num_epochs=None, learning_rate=1e-30, **{"train.max_steps": 1})
    assert (done["strategy"], read_spec(Path(done["run_dir"])).recipe.strategy.name) == ("fsdp2", "fsdp2")
    (file,) = Path(done["run_dir"]).glob("checkpoints/*/model.safetensors")
    began = load_file(file)
    shown = zerofit.load_vit_model("qwen3-tiny", 10, image_size=8, patch_size=4).state_dict()
    assert set(shown) == set(began)
    for name, value in shown.items():
        torch.testing.assert_close(value, began[name], rtol=0, atol=1e-25)


def test_a_crash_names_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A rank that a signal ends, before it reads its run.json.
    script = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    (tmp_path / "sitecustomize.py").write_text(f"import os\nif os.environ.get('RANK') == '1':\n    {script}\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(RuntimeError, match=r"rank 1 failed: killed by SIGKILL.*rank-1\.log") as caught:
        run("ddp")
    assert Path(str(caught.value).rpartition("its log: ")[2]).is_file()


def test_the_guides_example_runs_as_a_script(tmp_path: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 1
    (tmp_path / "guide.py").write_text("import torch\n" + blocks[0] + "print(sorted(result['profile'].items()))\n")
    done = subprocess.run(
        [sys.executable, "guide.py"], capture_output=True, text=True, timeout=400, check=False, env=environment()
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    assert re.search(r"top-1 \d+\.\d% after 10 steps, \d+ ms each", done.stdout)
    share = float(re.search(r"'data_wait_share', ([\d.e-]+)", done.stdout)[1])  # type: ignore[index]
    assert 0 < share < 1
