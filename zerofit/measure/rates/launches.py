"""How long a host takes for an operation of a model: its modules' Python, dispatcher, autograd, and the launch."""

from __future__ import annotations

import torch
from torch import nn

from zerofit.measure.operations import Count
from zerofit.measure.rates.stopwatch import seconds

LAYERS, TOKENS, WIDTH = 4, 8, 64
"""So small that no kernel is as long as its launch."""


def launch_seconds(device: torch.device, dtype: torch.dtype, budget: float) -> float:
    """Of a language model's forward and backward pass, divided by its operations; views are none.

    A bare operation in a loop takes less than half of that: it has no modules around it.
    """
    model = decoder(LAYERS).to(device, dtype)
    tokens = torch.arange(TOKENS, device=device)[None]

    def work() -> None:
        model(input_ids=tokens, labels=tokens).loss.backward()

    work()
    with Count() as count:
        work()
    return seconds(work, device, budget) / count.operations


def decoder(layers: int) -> nn.Module:
    """A small Qwen3 with LM head, of fresh weights."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    config = Qwen3Config(
        vocab_size=2 * WIDTH,
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=WIDTH // 4,
        use_cache=False,
    )
    model: nn.Module = Qwen3ForCausalLM(config)
    return model
