"""vLLM as rollout engine, by way of TRL: `make test-vllm` has its build for CPUs, which nothing else installs.

What it drew is scored by the model that is trained, before each optimizer step (TRL's importance sampling): in bf16 the
two differ by rounding. Steps are large: with the weights of the step before they differ by 0.2, and more later on.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path += [str(Path(__file__).parents[1] / name) for name in ("e2e", "faults")]
from cli_runs import environment, steps
from language_runs import GRPO
from test_interrupt import await_step

from zerofit.plan.rollout_engine import vllm_is_installed

pytestmark = pytest.mark.skipif(not vllm_is_installed(), reason="vllm is not installed: make test-vllm")
VARIED = "def worth(completion, row):\n    return (sum(map(ord, completion)) % 97) / 97\n"
"""A reward that differs from completion to completion, of a model that has learnt nothing."""
RECIPE = (
    GRPO.replace("[math_correct, {think_format: 0.5}]", '["varied:worth"]')
    .replace("lr: 1e-2", "lr: 3e-3\n  schedule: constant\n  warmup: {steps: 0}")
    .replace("sampling:", "rollout: {engine: vllm}\n  sampling:")
    .replace("head_dim: 16", "head_dim: 32")  # vLLM's attention on CPUs has none of 16
)
ON_CPU = {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_OFFLINE": "1",
}


def started(cwd: Path, *words: str) -> subprocess.Popen[str]:
    """A run of the recipe."""
    (cwd / "varied.py").write_text(VARIED)
    (cwd / "tiny.yaml").write_text(RECIPE)
    environ = environment(**ON_CPU, PYTHONPATH=os.pathsep.join((str(cwd), os.environ.get("PYTHONPATH", ""))))
    command, pipe = [sys.executable, "-m", "zerofit", "train", "tiny.yaml", *words], subprocess.PIPE
    return subprocess.Popen(command, cwd=cwd, env=environ, stdout=pipe, stderr=pipe, text=True)


def ended(process: subprocess.Popen[str], cwd: Path, code: int) -> list[dict[str, Any]]:
    """What each step of it recorded; nothing is left of what vLLM loaded, and it parts without a word."""
    printed, said = process.communicate(timeout=400)
    run = cwd / "runs" / "tiny"
    logs = "".join(path.read_text() for path in run.glob("logs/rank-*.log"))
    assert process.returncode == code, printed[-2000:] + said[-3000:]
    assert "Traceback" not in said + logs
    assert not (run / "vllm").exists()
    return steps(run)


@pytest.mark.parametrize("strategy", ["single", "ddp", "zero3", "fsdp2"])
def test_it_has_the_newest_weights(tmp_path: Path, strategy: str) -> None:
    found = ended(started(tmp_path, f"strategy={strategy}"), tmp_path, 0)
    assert len(found) == 4
    for step in found:
        assert step["logprob_difference_max"] < 0.05
        assert step["generate_s"] > 0
        assert step["grad_norm"] > 0.01


def test_cuts_do_not_stop_it_from_learning(tmp_path: Path) -> None:
    """vLLM's log-probabilities are after cuts: completions are not weighed by them, or gradients were 1e-6."""
    found = ended(started(tmp_path, "strategy=single", "grpo.sampling.top_k=20"), tmp_path, 0)
    assert "logprob_difference_max" not in found[0]
    assert min(step["grad_norm"] for step in found) > 0.01


def test_it_is_stopped_in_good_order(tmp_path: Path) -> None:
    process = started(tmp_path, "strategy=ddp", "train.max_steps=4000")
    await_step(tmp_path / "runs" / "tiny", 2, process)
    process.terminate()
    assert len(ended(process, tmp_path, 4)) < 4000
