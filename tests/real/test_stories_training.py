"""A model that was really trained goes on training: its weights are read as they are, under every strategy alike."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from stories import DATA, save_stories
from transformers import AutoModelForCausalLM, AutoTokenizer

from zerofit.config.grpo import Sampling
from zerofit.generate.generator import make_generator

pytestmark = [pytest.mark.real, pytest.mark.skipif(not DATA.is_dir(), reason="no real data beside the repository")]
RECIPE = """\
task: sft
model: {kind: causal_lm, pretrained: model}
data: {source: documents, path: stories.jsonl, max_length: 200, validation: 0.2}
train: {max_steps: 5, micro_batch: 4, global_batch: 8}
optimizer: {lr: 1e-4, weight_decay: 0.0}
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model, with a token for padding, and stories that it tells."""
    directory = tmp_path_factory.mktemp("stories")
    tokenizer = AutoTokenizer.from_pretrained(save_stories(directory / "model"))
    tokenizer.pad_token = "<unk>"
    tokenizer.save_pretrained(directory / "model")
    model = AutoModelForCausalLM.from_pretrained(directory / "model").eval()
    generator = make_generator("graph", torch.device("cpu"), 0, (1, 2), None)
    told = generator(model, [[1]] * 48, list(range(48)), Sampling(temperature=0.8, max_tokens=150))
    texts = [tokenizer.decode(one.tokens, skip_special_tokens=True) for one in told]
    assert sum("Once upon a time" in text for text in texts) > 24
    (directory / "stories.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    (directory / "stories.yaml").write_text(RECIPE)
    return directory


def losses(place: Path, name: str, *overrides: str) -> list[float]:
    """Of a run's steps; first that of validation before any."""
    words = ["train", "stories.yaml", f"run_dir={name}", "evaluate.at_start=true", "evaluate.every_steps=5", *overrides]
    environ = {**os.environ, "ZEROFIT_DEVICE": "cpu", "ZEROFIT_CACHE": str(place / "cache")}
    done = subprocess.run(
        [sys.executable, "-m", "zerofit", *words], cwd=place, env=environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-1500:] + done.stderr[-1500:]
    lines = [json.loads(line) for line in (place / name / "metrics.jsonl").read_text().splitlines()]
    return [line.get("loss", line.get("val_loss")) for line in lines]


@pytest.mark.thorough
def test_it_goes_on_from_what_it_knows(place: Path) -> None:
    zero3, fsdp2 = losses(place, "zero3", "strategy=zero3"), losses(place, "fsdp2", "strategy=fsdp2")
    fresh = losses(place, "fresh", "model.pretrained=null", f"model.shape={shape(place)}", "model.tokenizer=model")
    print(
        f"\nvalidation before and after: {zero3[0]:.3f} and {zero3[-1]:.3f} nats a token; fresh weights: {fresh[0]:.3f}"
    )
    assert zero3 == pytest.approx(fsdp2, rel=1e-6)
    assert zero3[0] < 1.6  # its own stories, at a temperature below 1
    assert fresh[0] > 5.5
    assert zero3[-1] < zero3[0] + 0.05


def shape(place: Path) -> str:
    config = json.loads((place / "model" / "config.json").read_text())
    wanted = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads")
    fields = {name: config[name] for name in (*wanted, "vocab_size", "max_position_embeddings")}
    return json.dumps({"model_type": "llama", **fields})
