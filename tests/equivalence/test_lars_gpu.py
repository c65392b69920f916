"""On two GPUs: LARS over NCCL takes the same steps under every strategy, with its state offloaded as well.

Under ddp it sees whole parameters; that those steps are the reference's is shown on the CPU (test_lars.py). Fresh
weights are drawn on the device, and a GPU draws others than a CPU: the two are not compared.
"""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from cases import furthest

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices"),
]
STRATEGIES = ("ddp", "fsdp2", "zero1", "zero2", "zero2+offload_optimizer", "zero3", "zero3+offload_all")
# moco-lars trains the patch embedding and the head; odd sizes, so that shards are padded.
RECIPE = """\
name: lars
task: probe
model:
  kind: patch_lm
  shape:
    {model_type: qwen3, hidden_size: 96, intermediate_size: 1023, num_hidden_layers: 2, num_attention_heads: 2,
     num_key_value_heads: 1, head_dim: 8, initializer_range: 0.2}
  image_size: 8
  patch_size: 4
data: {source: digits, augment: {flip: 0.0}}
probe: {preset: moco-lars, batch_norm: true}
train: {max_steps: 30, micro_batch: 16, global_batch: 64}
optimizer: {lr: 0.1, trust_coefficient: 0.3}
evaluate: {micro_batch: 60}
"""


def losses(directory: Path, strategy: str) -> list[float]:
    """`zerofit train` on two ranks in float32."""
    directory.mkdir()
    (directory / "lars.yaml").write_text(RECIPE)
    arguments = ["train", "lars.yaml", f"strategy={strategy}", "strategy.precision=fp32", "--nproc", "2"]
    done = subprocess.run(
        [sys.executable, "-m", "zerofit", *arguments],
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    lines = [json.loads(line) for line in (directory / "runs" / "lars" / "metrics.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if "loss" in line]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[float]]:
    directory = tmp_path_factory.mktemp("lars")
    with ThreadPoolExecutor() as threads:
        runs = {name: threads.submit(losses, directory / name, name) for name in STRATEGIES}
        return {name: run.result() for name, run in runs.items()}


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_lars_is_the_same_over_nccl(found: dict[str, list[float]], strategy: str) -> None:
    deviation = furthest(found[strategy], found["ddp"])
    print(strategy, "furthest from ddp", deviation)
    assert len(found["ddp"]) == 30
    assert found["ddp"][-1] < found["ddp"][0]  # it learns
    assert deviation <= 1e-6
