"""A small language model as transformers saves it, with random weights, and problems of embedded arithmetic."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from transformers import Qwen3Config, Qwen3ForCausalLM
from transformers.utils.logging import disable_progress_bar

from zerofit.data.arithmetic import split
from zerofit.data.byte_tokenizer import byte_tokenizer


def save_model(directory: Path, *, seed: int = 0) -> Path:
    """A Qwen3 with the byte tokenizer."""
    tokenizer = byte_tokenizer()
    torch.manual_seed(seed)
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        max_position_embeddings=512,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        initializer_range=0.3,  # else every token is as likely as any other
    )
    disable_progress_bar()
    Qwen3ForCausalLM(config).save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


def save_problems(path: Path, count: int) -> Path:
    """So many problems with their answers, as JSON Lines."""
    _, test = split(0, 0, count)
    rows = [{"question": one.question, "answer": str(one.answer)} for one in test]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path
