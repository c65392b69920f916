"""Packed rows are kept apart by attention that knows positions, and models that mix them are refused."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from zerofit.config.errors import UserError
from zerofit.data.isolation import check_isolation, shrunk

LARGE = {"vocab_size": 150_000, "hidden_size": 4096, "intermediate_size": 12_288, "num_hidden_layers": 36}


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("family", ["qwen3", "qwen2", "llama", "gpt2", "gemma3_text", "deepseek_v3"])
def test_attention_by_positions_keeps_rows_apart(family: str, attention: str) -> None:
    before = torch.get_rng_state()
    check_isolation(AutoConfig.for_model(family), attention)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("family", ["opt", "bloom", "mamba"])
def test_a_model_that_mixes_rows_is_refused(family: str) -> None:
    with pytest.raises(UserError, match=f"data.packing: the attention of {family} .* set data.packing=false"):
        check_isolation(AutoConfig.for_model(family), "eager")


def test_the_copy_is_small_and_has_a_layer_of_each_kind() -> None:
    config = AutoConfig.for_model("qwen3", **LARGE, layer_types=["sliding_attention"] * 35 + ["full_attention"])
    small = shrunk(config)
    assert small.layer_types == ["sliding_attention", "full_attention"]
    model = AutoModelForCausalLM.from_config(small)
    assert sum(one.numel() for one in model.parameters()) < 100_000
    assert config.hidden_size == 4096
