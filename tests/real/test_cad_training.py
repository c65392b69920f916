"""A CAD-MLLM learns real models by heart: from captions and clouds, and from images. Each is a run of many minutes.

pytest -s -m '' tests/real/test_cad_training.py -k by_heart
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import known_models
import pytest

pytestmark = [pytest.mark.real, pytest.mark.gpu]

RECIPE = """\
task: cad
model:
  kind: cad_mllm
  tokenizer: parts
  shape:
    model_type: qwen3
    hidden_size: 192
    num_hidden_layers: 4
    num_attention_heads: 6
    num_key_value_heads: 2
    head_dim: 32
    intermediate_size: 512
    vocab_size: 704
    max_position_embeddings: 1024
    tie_word_embeddings: true
  points: {latents: 16, width: 96, depth: 2, heads: 4}
  vision:
    shape: {hidden_size: 96, num_hidden_layers: 4, num_attention_heads: 4, patch_size: 14}
    image_size: 112
    pool: 2
data: {source: deepcad, path: models, caption: abstract, max_length: 900, points: 1024}
train: {micro_batch: 15, global_batch: 15, seed: 0}
optimizer: {lr: 2e-3, betas: [0.9, 0.98], schedule: cosine, warmup: {fraction: 0.05}, weight_decay: 0.0}
strategy: single
"""
# Most pixels are white. Scaled as photographs are, that is 2.2 to 2.6 everywhere, and 900 steps tell no parts apart.
WHITE = ("data.mean=[0.9,0.9,0.9]", "data.std=[0.2,0.2,0.2]")


@pytest.mark.parametrize(
    ("make", "source", "mix", "steps", "more"),
    [
        (known_models.deepcad, "deepcad", "text+points", 480, ()),
        (known_models.gencad_code, "omni_cad", "image", 1000, WHITE),
    ],
    ids=["told", "seen"],
)
def test_models_are_learnt_by_heart(
    make: Any, source: str, mix: str, steps: int, more: tuple[str, ...], tmp_path: Path
) -> None:
    make(tmp_path / "models")
    (tmp_path / "heart.yaml").write_text(RECIPE)
    data = (f"data.source={source}", "data.path=models", f"data.mix={{{mix}: 1}}")
    zerofit(tmp_path, "train", "heart.yaml", *data, f"train.max_steps={steps}", *more)
    test = json.loads((tmp_path / "runs/heart/result.json").read_text())["test"]
    zerofit(tmp_path, "eval", "runs/heart")
    figures: dict[str, Any] = json.loads((tmp_path / "runs/heart/evaluations/1/evaluation.json").read_text())["figures"]
    print(f"\n{mix}: tokens right {test['token_accuracy']:.4f}")
    for told, one in figures.items():
        shares = ("parsed", "valid", "command_accuracy", "parameter_accuracy")
        print(told, {name: round(one[name]["value"], 4) for name in shares})
    assert test["models"] == 75
    assert figures[mix]["command_accuracy"]["value"] >= 0.95
    assert figures["none"]["command_accuracy"]["value"] < 0.8


def zerofit(cwd: Path, *words: str) -> None:
    environ = {**os.environ, "ZEROFIT_DEVICE": "cpu", "ZEROFIT_CACHE": str(cwd / "cache"), "OMP_NUM_THREADS": "2"}
    done = subprocess.run(
        [sys.executable, "-m", "zerofit", *words], cwd=cwd, env=environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-1500:] + done.stderr[-3000:]
