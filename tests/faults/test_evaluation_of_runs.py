"""`zerofit eval RUN` of language runs: whatever the strategy, what is evaluated is the model that is exported."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from commands import Zygote
from language_models import save_problems

from zerofit.measure.rollouts import read_rollouts

RECIPE = """\
name: sums
task: sft
model:
  kind: causal_lm
  tokenizer: bytes
  shape: {model_type: qwen3, vocab_size: 272, hidden_size: 32, intermediate_size: 64, num_hidden_layers: 2,
    num_attention_heads: 4, num_key_value_heads: 2, head_dim: 8, max_position_embeddings: 640,
    tie_word_embeddings: true}
data: {source: arithmetic, problems: 100, test_problems: 30, max_length: 420}
train: {max_steps: 6, micro_batch: 4, global_batch: 8}
optimizer: {lr: 1e-2}
evaluate: {at_end: false}
"""
LORA = ("model.lora.rank=4", "model.lora.alpha=64")
GRPO = "grpo={rewards: [math_correct], num_generations: 2, sampling: {max_tokens: 8}}"
KINDS = {
    "zero3": ("strategy=zero3",),
    "fsdp2-lora": ("strategy=fsdp2", *LORA),
    "ddp-lora": ("strategy=ddp", *LORA),
    "zero2": ("strategy=zero2",),
    "zero3-lora": ("strategy=zero3", *LORA),
    "grpo": ("strategy=zero2", "task=grpo", GRPO, "optimizer.weight_decay=0.5"),
}
SHORT = "zero3-lora"


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=() if kind == SHORT else pytest.mark.thorough) for kind in KINDS]
)
def test_a_run_answers_as_what_is_exported_of_it(kind: str, zygote: Zygote, tmp_path: Path) -> None:
    (tmp_path / "sums.yaml").write_text(RECIPE)
    save_problems(tmp_path / "problems.jsonl", 12)
    trained = zygote.run("train", "sums.yaml", *KINDS[kind], "checkpoint.every_steps=3", cwd=tmp_path)
    assert trained.code == 0, trained.said
    words = ("--data", "problems.jsonl", "--max-tokens", 24, "--k", "1,2")
    ours = zygote.run("eval", "runs/sums", *words, cwd=tmp_path)
    assert ours.code == 0, ours.said
    exported = zygote.run("convert", "runs/sums", "--to", "hf", "--merge-lora", "--output", "exported", cwd=tmp_path)
    assert exported.code == 0, exported.said
    theirs = zygote.run("eval", "exported", *words, "--nproc", 1, cwd=tmp_path)
    assert theirs.code == 0, theirs.said
    rows = read_rollouts(tmp_path / "runs" / "sums" / "evaluations" / "1" / "rollouts.parquet")
    assert rows == read_rollouts(tmp_path / "evaluations" / "exported-1" / "rollouts.parquet")
    earlier = zygote.run("eval", "runs/sums@3", *words, cwd=tmp_path)
    assert earlier.code == 0, earlier.said
    second = tmp_path / "runs" / "sums" / "evaluations" / "2"
    assert json.loads((second / "evaluation.json").read_text())["model"] == "runs/sums/checkpoints/step-000003"
    assert [row.completion for row in read_rollouts(second / "rollouts.parquet")] != [row.completion for row in rows]
    if kind == SHORT:
        own = zygote.run("eval", "runs/sums", "--limit", 5, "--max-tokens", 4, cwd=tmp_path)
        assert own.code == 0, own.said
        assert (second.parent / "3" / "report.html").exists()
        read = read_rollouts(second.parent / "3" / "rollouts.parquet")
        assert [row.problem for row in read] == [f"arithmetic test:{number}" for number in range(1, 6)]
        images = zygote.run("eval", "runs/sums", "--data", "data.limit=5", cwd=tmp_path)
        assert "data.limit=5 does not exist" in images.refused()
