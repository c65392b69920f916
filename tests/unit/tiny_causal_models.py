"""Tiny causal language models of several families, and prompts for them."""

from __future__ import annotations

from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

PAD, STOP = 0, 3
SHAPE = {
    "vocab_size": 40,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 64,
    "pad_token_id": None,
    "bos_token_id": None,
    "eos_token_id": None,
}
FAMILIES: dict[str, dict[str, Any]] = {
    "qwen3": SHAPE | {"model_type": "qwen3", "tie_word_embeddings": True},
    "qwen2": SHAPE | {"model_type": "qwen2"},
    "llama": SHAPE | {"model_type": "llama"},
    "mistral": SHAPE | {"model_type": "mistral", "sliding_window": 6},
    "gemma2": SHAPE | {"model_type": "gemma2", "sliding_window": 6, "attn_implementation": "eager"},
    "gemma3": SHAPE
    | {"model_type": "gemma3_text", "sliding_window": 6, "layer_types": ["sliding_attention", "full_attention"]},
    "qwen3_moe": SHAPE
    | {"model_type": "qwen3_moe", "moe_intermediate_size": 24, "num_experts": 4, "num_experts_per_tok": 2},
    "gpt_neox": SHAPE | {"model_type": "gpt_neox"},
    "gpt2": {"model_type": "gpt2", "vocab_size": 40, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64},
}
PROMPTS = [[5, 6, 7], [8], [9, 10, 11, 12, 13, 14, 15, 16, 17], [5, 6, 7], [18, 19, 20, 21, 22]]
SEEDS = [11, 12, 13, 14, 2**40 + 11]


def model_of(family: str, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """Random weights, large enough that the likeliest tokens differ from place to place."""
    fields = dict(FAMILIES[family])
    attention = fields.pop("attn_implementation", "sdpa")
    config = AutoConfig.for_model(**fields)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, attn_implementation=attention, dtype=dtype)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(6)
    return model
