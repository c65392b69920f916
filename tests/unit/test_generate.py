"""Both engines complete the same prompts alike, whatever the model's family."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from zerofit.config.grpo import Sampling
from zerofit.generate import graph
from zerofit.generate.completion import Completion
from zerofit.generate.generator import make_generator

CPU = torch.device("cpu")
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


def complete(engine: str, model: PreTrainedModel, sampling: Sampling, batch: int | None = None) -> list[Completion]:
    return make_generator(engine, CPU, PAD, [STOP], batch)(model, PROMPTS, SEEDS, sampling)


def recomputed(model: PreTrainedModel, prompt: list[int], completion: Completion, temperature: float) -> torch.Tensor:
    """Log-probabilities of the completion's tokens by one forward over all of it."""
    row = torch.tensor([prompt + completion.tokens])
    with torch.no_grad():
        logits = model(input_ids=row).logits[0, len(prompt) - 1 : -1] / (temperature or 1.0)
    return logits.log_softmax(-1).gather(-1, torch.tensor(completion.tokens)[:, None])[:, 0]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_engines_agree(family: str, temperature: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graph, "BUCKET", 8)
    model = model_of(family).eval()
    sampling = Sampling(temperature=temperature, max_tokens=24)
    found = complete("graph", model, sampling)
    plain = complete("hf", model, sampling)
    assert [one.tokens for one in found] == [one.tokens for one in plain]
    assert [one.stopped for one in found] == [one.stopped for one in plain]
    assert len({tuple(one.tokens) for one in found}) >= 3
    for prompt, one, other in zip(PROMPTS, found, plain, strict=True):
        whole = recomputed(model, prompt, one, temperature)
        torch.testing.assert_close(torch.tensor(one.logprobs), whole, rtol=0, atol=1e-5)
        torch.testing.assert_close(torch.tensor(other.logprobs), whole, rtol=0, atol=1e-5)
