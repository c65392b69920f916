"""Real images: fine-tune, then probe the result with every preset, online and on cached features."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

IMAGES = Path(__file__).parents[2].parent / "shared" / "data" / "images"
pytestmark = [
    pytest.mark.real,
    pytest.mark.thorough,
    pytest.mark.skipif(not IMAGES.is_dir(), reason="no real data beside the repository"),
]


def test_every_preset_probes_a_model_trained_on_cifar10(tmp_path: Path) -> None:
    """The benchmark itself, on few images: what must come out are figures of all 4,000 test images for each run."""
    script = Path(__file__).parents[2] / "bench" / "probe_real.py"
    small = (
        "{model_type: qwen3, hidden_size: 32, num_hidden_layers: 2, num_attention_heads: 2, num_key_value_heads: 1, "
    )
    shape = f"model.shape={small}head_dim: 16, intermediate_size: 64}}"
    options = ["--models", "patch_lm", "--kinds", "online", "cached", "--finetune-epochs", "3", "--probe-epochs", "2"]
    command = [
        sys.executable,
        str(script),
        "--data",
        str(IMAGES / "cifar10"),
        "--out",
        str(tmp_path / "runs"),
        *options,
    ]
    changes = ["--set", "data.limit=256", "data.workers=0", "strategy=single", shape]
    done = subprocess.run([*command, *changes], capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    runs = [json.loads(line) for line in done.stdout.splitlines()]
    presets = [
        f"patch_lm-{preset}-{kind}" for preset in ("moco-v3", "mae", "moco-lars") for kind in ("online", "cached")
    ]
    assert [run["run"] for run in runs] == ["patch_lm-finetune", *presets]
    assert not [run for run in runs if "error" in run]
    cached = [run for run in runs if run["run"].endswith("-cached")]
    assert [run["features"]["reused"] for run in cached] == [False, True, True]  # the same backbone and images
    assert len({run["knn_top1"] for run in cached}) == 1
    assert cached[0]["knn_top1"] > 0.15  # chance is 0.1
