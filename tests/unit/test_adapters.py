"""LoRA adapters: a model that starts as the one without them, and can be merged back into it."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from pydantic import ValidationError
from tiny_models import CPU, GPT2, QWEN3, VIT, build, pixels, tiny_spec
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode
from transformers import GPT2Config, GPT2LMHeadModel

from zerofit.config.errors import UserError
from zerofit.config.schema import Recipe
from zerofit.measure.flops import flops_per_sample
from zerofit.models.build import KINDS, build_model
from zerofit.models.classifier import ImageClassifier
from zerofit.models.frozen import write_frozen
from zerofit.models.placement import WholePlacement
from zerofit.models.vit import VitClassifier
from zerofit.models.whole import all_weights, describe_model, names_of

MODELS: dict[str, dict[str, Any]] = {
    "vit": {"kind": "vit", "shape": VIT},
    "qwen3": {"kind": "patch_lm", "shape": QWEN3},
    "gpt2": {"kind": "patch_lm", "shape": GPT2, "pool": "cls"},  # Conv1D, whose weights are transposed
}
LORA = {"rank": 3, "alpha": 7.5}


@pytest.fixture(params=MODELS)
def model(request: pytest.FixtureRequest) -> dict[str, Any]:
    return MODELS[request.param]


def with_random_adapters(model: dict[str, Any], **plan: Any) -> ImageClassifier:
    """With LoRA, as if it had trained."""
    adapted = build({**model, "lora": LORA}, **plan)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if ".lora_B." in name:
                parameter.normal_(std=0.1, generator=generator)
    return adapted


def test_starts_as_the_model_without_adapters_bit_for_bit(model: dict[str, Any]) -> None:
    plain, adapted = build(model).eval(), build({**model, "lora": LORA}).eval()
    assert torch.equal(adapted(pixels()), plain(pixels()))
    base = {name.replace(".base_layer.", "."): value for name, value in adapted.named_parameters()}
    for name, value in plain.named_parameters():
        assert torch.equal(base.pop(name), value), name
    assert len(base) == 2 * sum(".base_layer.weight" in name for name, _ in adapted.named_parameters()) > 0


def test_pretrained_weights_come_to_lie_under_the_adapters(tmp_path: Path) -> None:
    saved = GPT2LMHeadModel(GPT2Config(**GPT2))
    saved.save_pretrained(tmp_path)
    adapted = build({"kind": "patch_lm", "pretrained": str(tmp_path), "lora": LORA})
    for index, block in enumerate(saved.transformer.h):
        layer = adapted.get_submodule(f"backbone.h.{index}.mlp.c_fc.base_layer")
        assert torch.equal(layer.weight, block.mlp.c_fc.weight)
        assert torch.equal(layer.bias, block.mlp.c_fc.bias)


def test_adapters_and_head_are_trained_and_nothing_else(model: dict[str, Any]) -> None:
    adapted = build({**model, "lora": LORA})
    trained = {name for name, parameter in adapted.named_parameters() if parameter.requires_grad}
    assert trained == {name for name, _ in adapted.named_parameters() if ".lora_" in name or "backbone." not in name}
    adapted(pixels()).square().sum().backward()
    for name, parameter in adapted.named_parameters():
        assert (parameter.grad is not None) == (name in trained)
    assert all(adapted.get_parameter(name).grad.abs().sum() > 0 for name in trained if ".lora_B." in name)


def test_adapters_are_functions_of_seed_and_name() -> None:
    model = {"kind": "patch_lm", "shape": QWEN3, "lora": LORA}
    one, same, other = build(model), build(model), build(model, seed=1)
    narrow = build({**model, "lora": {**LORA, "targets": r"layers\.1\..*v_proj$"}})
    name = "backbone.layers.1.self_attn.v_proj.lora_A.default.weight"
    down = one.get_parameter(name)
    assert torch.equal(down, same.get_parameter(name))
    assert torch.equal(down, narrow.get_parameter(name))
    assert not torch.equal(down, other.get_parameter(name))
    assert down.shape == (3, 32)
    assert 0.9 * 32**-0.5 < down.abs().max() <= 32**-0.5  # Kaiming-uniform with a = sqrt(5)
    assert [key for key, _ in narrow.named_parameters() if ".lora_" in key] == [name, name.replace("lora_A", "lora_B")]


def test_merged_weights_are_the_models_own(model: dict[str, Any], tmp_path: Path) -> None:
    adapted = with_random_adapters(model).eval()
    assert adapted.frozen_hash is not None
    write_frozen(tmp_path, adapted.frozen_hash, "a test")
    plain, logits = build(model).eval(), adapted(pixels()).detach()
    assert (plain(pixels()) - logits).abs().max() > 0.01 * logits.abs().max()
    parameters = {name: value.detach().clone() for name, value in adapted.named_parameters()}
    held = {name: partial(Tensor.detach, value) for name, value in adapted.state_dict().items()}  # what was trained
    described = describe_model(tiny_spec({**model, "lora": LORA}))
    merged = {name: read() for name, read in all_weights(described, held, tmp_path, merged=True)}
    assert merged.keys() == set(names_of(described, merged=True))
    plain.load_state_dict(merged)
    assert (plain(pixels()) - logits).abs().max() < 1e-5 * logits.abs().max()
    for name, value in plain.named_parameters():
        layer = name.removesuffix(".weight")
        if f"{layer}.base_layer.weight" in parameters:
            up, down = (parameters[f"{layer}.lora_{matrix}.default.weight"] for matrix in "BA")
            change = 7.5 / 3 * (up @ down)
            change = change.T if model["shape"] is GPT2 else change
            torch.testing.assert_close(value, parameters[f"{layer}.base_layer.weight"] + change)


def test_a_frozen_weight_with_two_names_is_found_again(tmp_path: Path) -> None:
    class TiedVit(VitClassifier):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            self.backbone.layers[1].layernorm_after.weight = self.backbone.layers[1].layernorm_before.weight

    names = [f"backbone.layers.1.layernorm_{where}.weight" for where in ("before", "after")]
    with patch.dict(KINDS, vit=(KINDS["vit"][0], TiedVit)):
        adapted = with_random_adapters(MODELS["vit"])
        assert adapted.get_parameter(names[0]) is adapted.get_parameter(names[1])
        held = {name: partial(Tensor.detach, value) for name, value in adapted.state_dict().items()}
        assert held.keys().isdisjoint(names)
        assert adapted.frozen_hash is not None
        write_frozen(tmp_path, adapted.frozen_hash, "a test")
        described = describe_model(tiny_spec({**MODELS["vit"], "lora": LORA}))
        whole = {name: read() for name, read in all_weights(described, held, tmp_path, merged=False)}
    assert whole.keys() == set(names_of(described, merged=False))
    assert torch.equal(whole[names[0]], adapted.get_parameter(names[0]))
    assert torch.equal(whole[names[1]], whole[names[0]])


def test_recomputed_blocks_give_the_same_gradients() -> None:
    def gradients(mode: str) -> dict[str, torch.Tensor]:
        strategy = {"activation_checkpointing": mode}
        adapted = with_random_adapters(MODELS["qwen3"], strategy=strategy)
        adapted(pixels()).square().sum().backward()
        return {name: value.grad for name, value in adapted.named_parameters() if value.grad is not None}

    kept, recomputed = gradients("none"), gradients("full")
    assert kept.keys() == recomputed.keys()
    assert all(torch.equal(kept[name], recomputed[name]) for name in kept)


def test_low_precision_holds_adapters_as_all_other_weights(model: dict[str, Any]) -> None:
    spec = tiny_spec({**model, "lora": LORA})
    adapted = build_model(spec, WholePlacement(CPU, torch.bfloat16), torch.bfloat16)
    assert {parameter.dtype for parameter in adapted.parameters()} == {torch.bfloat16}
    assert adapted(pixels()).isfinite().all()


def test_flops_count_base_layers_once_and_adapters(model: dict[str, Any]) -> None:
    bare, full = {**model, "attention": "eager"}, {**model, "attention": "eager", "lora": LORA}
    if model["kind"] == "patch_lm":
        bare["attention_mask"] = full["attention_mask"] = "bidirectional"
    adapted = build(full).eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        adapted(pixels(batch=1))
    assert flops_per_sample(adapted) == pytest.approx(counter.get_total_flops(), rel=1e-3)
    small = sum(value.numel() for name, value in adapted.named_parameters() if ".lora_" in name)
    assert flops_per_sample(adapted) - flops_per_sample(build(bare)) == 2 * small * adapted.tokens


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"lora": {"targets": "query$"}}, ("model.lora.targets: query$", "self_attn.q_proj, ", "mlp.down_proj")),
        ({"lora": {"targets": "^head"}}, ("model.lora.targets: ^head",)),
        ({"lora": LORA, "trainable": [{"pattern": ".", "freeze": True}]}, ("every parameter is frozen",)),
        ({"lora": LORA, "trainable": ["^head"]}, ("model.trainable", "freeze the adapters", r"\.lora_")),
    ],
)
def test_lora_that_would_do_nothing_is_refused(change: dict[str, Any], words: tuple[str, ...]) -> None:
    with pytest.raises(UserError) as error:
        build({**MODELS["qwen3"], **change})
    assert "\n" not in str(error.value)
    for word in words:
        assert word in str(error.value)


def test_a_probe_has_no_adapters() -> None:
    recipe = {
        "task": "probe",
        "model": {**MODELS["vit"], "lora": LORA},
        "data": {"source": "digits"},
        "train": {"epochs": 1, "micro_batch": 2, "global_batch": 2},
        "optimizer": {"lr": 1e-3},
    }
    with pytest.raises(ValidationError, match="a probe trains a head: export the merged model and probe that"):
        Recipe.model_validate(recipe)
