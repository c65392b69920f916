"""Recipes of language tasks that take seconds."""

from __future__ import annotations

SHAPE = """\
    model_type: qwen3
    hidden_size: 32
    intermediate_size: 64
    num_hidden_layers: 2
    num_attention_heads: 2
    num_key_value_heads: 1
    head_dim: 16
    vocab_size: 272
    max_position_embeddings: 640
    tie_word_embeddings: true
"""
SFT = f"""\
task: sft
model:
  kind: causal_lm
  tokenizer: bytes
  shape:
{SHAPE}data:
  source: arithmetic
  problems: 64
  test_problems: 8
  max_length: 420
train:
  max_steps: 4
  micro_batch: 4
  global_batch: 8
optimizer:
  lr: 1e-2
strategy: ddp
"""
GRPO = (
    SFT.replace("task: sft", "task: grpo")
    + """\
grpo:
  rewards: [math_correct, {think_format: 0.5}]
  num_generations: 4
  sampling: {max_tokens: 16}
evaluate: {at_start: true}
"""
)
