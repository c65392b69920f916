"""Fresh weights: functions of (seed, name), distributed as transformers initialises them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny_models import CPU, GPT2, LLAMA, QWEN3, VIT, build, equal_weights
from transformers import AutoConfig, AutoModel

from zerofit.models.initialise import fresh_weights, seed_of

GEMMA = {**LLAMA, "model_type": "gemma", "head_dim": 8}
FAMILIES: list[dict[str, Any]] = [QWEN3, GPT2, GEMMA]


def test_the_same_seed_gives_the_same_weights_and_another_seed_others() -> None:
    for model in ({"kind": "vit", "shape": VIT}, {"kind": "patch_lm", "shape": QWEN3, "pool": "cls"}):
        one, same, other = build(model, seed=3), build(model, seed=3), build(model, seed=4)
        assert equal_weights(one, same)
        for name, parameter in one.named_parameters():
            drawn = parameter.std() > 0
            assert torch.equal(parameter, other.get_parameter(name)) != drawn, name


def test_the_global_random_state_neither_matters_nor_changes() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    one = build({"kind": "vit", "shape": VIT})
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(2)
    assert equal_weights(one, build({"kind": "vit", "shape": VIT}))


def test_a_parameter_does_not_depend_on_the_rest_of_the_model() -> None:
    shallow = build({"kind": "patch_lm", "shape": {**QWEN3, "num_hidden_layers": 1}})
    deep = build({"kind": "patch_lm", "shape": {**QWEN3, "num_hidden_layers": 3}})
    for name, parameter in shallow.named_parameters():
        assert torch.equal(parameter, deep.get_parameter(name))


def test_names_and_seeds_are_told_apart() -> None:
    seeds = [seed_of(seed, name) for seed in (0, 1, 10, 2**32 - 1) for name in ("a.weight", "b.weight", "0:a.weight")]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**63 for seed in seeds)


@pytest.mark.parametrize("shape", FAMILIES, ids=lambda shape: shape["model_type"])
def test_backbones_are_distributed_as_transformers_would(shape: dict[str, Any]) -> None:
    wide = {**shape, "n_embd": 128} if "n_embd" in shape else {**shape, "hidden_size": 128, "intermediate_size": 128}
    ours = build({"kind": "patch_lm", "shape": wide}).backbone
    theirs = AutoModel.from_config(AutoConfig.for_model(**wide))
    for name, parameter in ours.named_parameters():
        reference = theirs.get_parameter(name)
        assert parameter.mean().item() == pytest.approx(reference.mean().item(), abs=0.002), name
        assert parameter.std().item() == pytest.approx(reference.std().item(), rel=0.1, abs=1e-6), name


def test_gpt2_residual_projections_are_smaller_and_gemma_norms_zero() -> None:
    gpt2 = build({"kind": "patch_lm", "shape": {**GPT2, "n_embd": 128}}).backbone
    assert gpt2.h[0].mlp.c_fc.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert gpt2.h[0].mlp.c_proj.weight.std().item() == pytest.approx(0.02 / (2 * 2) ** 0.5, rel=0.05)
    gemma = build({"kind": "patch_lm", "shape": GEMMA}).backbone
    assert (gemma.norm.weight == 0).all()


def test_head_and_patches_start_as_documented() -> None:
    model = build({"kind": "patch_lm", "shape": QWEN3})
    assert (model.head.bias == 0).all()
    assert model.head.weight.std().item() == pytest.approx(0.02, rel=0.2)
    patches = model.get_parameter("patch_embedding.weight")
    bound = (6 / (patches[0].numel() + len(patches))) ** 0.5  # xavier, on flattened patches
    assert patches.abs().max() <= bound
    assert patches.std().item() == pytest.approx(bound / 3**0.5, rel=0.1)


def test_the_skeleton_is_left_as_it_was() -> None:
    model = build({"kind": "vit", "shape": VIT}).to("meta")
    names = [name for name, _ in model.named_parameters()]
    values = dict(fresh_weights(model, names, 0, CPU))
    assert all(parameter.is_meta for parameter in model.parameters())
    assert list(values) == names
    assert {value.dtype for value in values.values()} == {torch.float32}
