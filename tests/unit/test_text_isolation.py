"""Packed rows are kept apart by attention that knows positions, and models that mix them are refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from transformers import AutoConfig, AutoModelForCausalLM

from zerofit.config.errors import UserError
from zerofit.data.isolation import check_isolation, shrunk
from zerofit.data.packing import packed
from zerofit.data.samples import Sample
from zerofit.data.text_loader import end_to_end, side_by_side

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


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_packs_have_the_loss_and_gradients_of_their_rows_side_by_side(attention: str) -> None:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(shrunk(AutoConfig.for_model("qwen3")), attn_implementation=attention)
    random = np.random.default_rng(0)
    rows = [
        Sample(random.integers(3, 60, n).astype(np.int32), (np.arange(n) > 0) & (random.random(n) < 0.6), (n,))
        for n in random.integers(2, 30, 12).tolist()
    ]
    found = []
    packs = list(packed(rows, 40))
    for batch in (side_by_side(rows, 0), end_to_end(packs), side_by_side(packs, 0, packed=True)):
        model.zero_grad()
        labels = batch.pop("labels")
        if "position_ids" in batch:
            batch.pop("attention_mask", None)
        logits = model(**batch, use_cache=False).logits[:, :-1]
        loss = F.cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten(), reduction="sum")
        loss.backward()
        found.append((float(loss.detach()), torch.cat([one.grad.flatten() for one in model.parameters()])))
    (loss, gradient), *packed_in_two_ways = found
    for packed_loss, packed_gradient in packed_in_two_ways:
        assert packed_loss == pytest.approx(loss, rel=1e-6)
        assert torch.linalg.norm(packed_gradient - gradient) < 1e-5 * torch.linalg.norm(gradient)


def test_the_copy_is_small_and_has_a_layer_of_each_kind() -> None:
    config = AutoConfig.for_model("qwen3", **LARGE, layer_types=["sliding_attention"] * 35 + ["full_attention"])
    small = shrunk(config)
    assert small.layer_types == ["sliding_attention", "full_attention"]
    model = AutoModelForCausalLM.from_config(small)
    assert sum(one.numel() for one in model.parameters()) < 100_000
    assert config.hidden_size == 4096
