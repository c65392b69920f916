"""Layers in 4 bits: against bitsandbytes itself, through casts, and what a plan and FLOPs make of them."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import bitsandbytes as bnb
import pytest
import torch
from language_examples import PROMPTS, TURING, sft
from plan_examples import CPU
from torch import nn

from zerofit.config.errors import UserError
from zerofit.config.hardware import Limits
from zerofit.config.schema import Recipe
from zerofit.measure.flops import training_flops_per_sample
from zerofit.models.build import build_model
from zerofit.models.placement import WholePlacement
from zerofit.models.quantised import PackedLinear, packed_layers, scale_tensors
from zerofit.models.trained import TrainedModel
from zerofit.plan.build import make_plan
from zerofit.plan.decoder import decoder_of
from zerofit.plan.spec import RunSpec
from zerofit.plan.states import Engine, states
from zerofit.report.table import headline
from zerofit.train.dtypes import WrongDtype, check_dtypes, tensors_of
from zerofit.train.saving import note_of, saving_note
from zerofit.train.strategy import engine_for

DEVICE = torch.device("cpu")
KINDS = [("nf4", torch.float16), ("nf4", torch.float32), (None, torch.float32)]
SHAPE = {
    "model_type": "qwen2",
    "hidden_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 384,
    "max_position_embeddings": 512,
    "vocab_size": 272,
    "hidden_act": "silu",
    "tie_word_embeddings": False,
}


def planned(strategy: Any = "ddp", hardware: Any = TURING, **model: Any) -> RunSpec:
    """On two cards whose capability is 7.5, which have no bf16."""
    recipe = sft(model={"shape": SHAPE, **model}, strategy=strategy)
    facts = PROMPTS.model_copy(update={"vocabulary": 272, "pad": 0, "stops": (1,)})
    return make_plan(recipe, facts=facts, hardware=hardware, ranks=2, run_dir=Path("unused"))


def on_this_cpu(spec: RunSpec) -> RunSpec:
    """What was planned for a card, its precision too, to be built here."""
    return spec.model_copy(update={"hardware": CPU})


def built(spec: RunSpec, dtype: torch.dtype, held: torch.dtype = torch.float32) -> TrainedModel:
    return build_model(on_this_cpu(spec), WholePlacement(DEVICE, held), dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("inputs", "outputs"), [(64, 48), (16, 33), (5, 3), (1, 1)])
def test_a_layer_is_what_bitsandbytes_makes_of_it(dtype: torch.dtype, inputs: int, outputs: int) -> None:
    torch.manual_seed(0)
    weight = torch.randn(outputs, inputs, dtype=torch.bfloat16)
    bias = torch.randn(outputs)
    layer = PackedLinear(inputs, outputs, bias=True, compute_dtype=dtype)
    layer.weight.data = layer.take(weight)
    layer.bias.data = bias
    packed, scales = bnb.functional.quantize_4bit(weight.float(), compress_statistics=True, quant_type="nf4")
    whole = bnb.functional.dequantize_4bit(packed, scales).to(dtype)
    assert layer.dequantised().dtype == dtype
    torch.testing.assert_close(layer.dequantised(), whole, rtol=0, atol=torch.finfo(dtype).eps)
    x = torch.randn(2, 7, inputs, dtype=dtype, requires_grad=True)
    same = x.detach().clone().requires_grad_()
    out, right = layer(x), nn.functional.linear(same, whole, bias.to(dtype))
    torch.testing.assert_close(out, right)
    out.square().sum().backward()
    right.square().sum().backward()
    torch.testing.assert_close(x.grad, same.grad)
    torch.testing.assert_close(layer.bias.grad, 2 * right.detach().float().sum((0, 1)), rtol=0.05, atol=0.5)


def test_casts_do_not_reach_the_packed_bytes() -> None:
    layer = PackedLinear(64, 48, bias=True, compute_dtype=torch.float16)
    layer.weight.data = layer.take(torch.randn(48, 64))
    before, whole = layer.weight.detach().view(torch.uint8).clone(), layer.dequantised()
    outer = nn.Sequential(layer)
    for cast in (outer.float, outer.bfloat16, outer.half, outer.double):
        cast()
        assert torch.equal(layer.weight.detach().view(torch.uint8), before)
        assert torch.equal(layer.dequantised(), whole)
    assert layer.bias.dtype == torch.float64


def test_an_fp16_plan_has_no_bf16_tensor_anywhere() -> None:
    spec = planned()
    assert spec.precision == "fp16"
    for held in (torch.float32, torch.float16):  # as ddp and FSDP2 hold what is trained, and as ZeRO does
        model = built(spec, torch.float16, held)
        found = dict(tensors_of(model))
        assert sum(name.startswith("scale") for name in found) == 5 * 14
        assert torch.bfloat16 not in {tensor.dtype for tensor in found.values()}
        for name, parameter in model.named_parameters():
            assert parameter.dtype == (held if ".lora_" in name else torch.float16), name
        with torch.autocast("cpu", torch.float16):
            logits = model(input_ids=torch.arange(12).view(2, 6)).logits
        assert logits.dtype == torch.float16
        logits.float().square().mean().backward()
        gradients = [one.grad for one in model.parameters() if one.requires_grad]
        assert {one.dtype for one in gradients if one is not None} == {held}


def test_trl_takes_the_model_for_none_that_it_would_cast() -> None:
    model = built(planned(), torch.float16)
    for name in ("is_loaded_in_4bit", "is_loaded_in_8bit", "is_quantized", "hf_quantizer"):
        assert not getattr(model, name, False), name
    assert getattr(model.config, "quantization_config", None) is None


class TestDtypes:
    """What is held and computed in another type is found before the first step."""

    @staticmethod
    def check(model: TrainedModel, **changes: Any) -> None:
        engine: Any = engine_for(on_this_cpu(planned()), DEVICE)
        engine.autocast_dtype = lambda: changes.get("autocast", torch.float16)
        optimizer = torch.optim.AdamW([one for one in model.parameters() if one.requires_grad])
        check_dtypes(engine, model, model, optimizer)

    def test_as_planned(self) -> None:
        self.check(built(planned(), torch.float16))

    @pytest.mark.parametrize(
        ("spoil", "said"),
        [
            (
                lambda model: cast(model, ".lora_", torch.bfloat16),
                "lora_A.default.weight, which is trained, is held in",
            ),
            (lambda model: cast(model, ".lora_", torch.float16), "trained, is held in float16, not in float32"),
            (lambda model: cast(model, "norm", torch.bfloat16), "which is frozen, is held in bfloat16, not in float16"),
            (lambda model: cast(model, "lm_head", torch.float32), "frozen, is held in float32, not in float16"),
            (lambda model: model.register_buffer("x", torch.ones(1, dtype=torch.bfloat16)), "x is bf16 in a run that"),
            (lambda model: spoil_scales(model), "in 4 bits, is unpacked in bfloat16, not in float16"),
            (lambda model: setattr(model, "compute_dtype", torch.bfloat16), "the model computes in bfloat16"),
        ],
    )
    def test_what_is_not(self, spoil: Any, said: str) -> None:
        model = built(planned(), torch.float16)
        spoil(model)
        with pytest.raises(WrongDtype, match=said):
            self.check(model)

    def test_an_autocast_of_another_type(self) -> None:
        with pytest.raises(WrongDtype, match="forward passes compute in bfloat16, not in float16"):
            self.check(built(planned(), torch.float16), autocast=torch.bfloat16)


def cast(model: nn.Module, part: str, dtype: torch.dtype) -> None:
    for name, parameter in model.named_parameters():
        if part in name:
            parameter.data = parameter.data.to(dtype)


def spoil_scales(model: nn.Module) -> None:
    for _, layer in packed_layers(model):
        assert layer.scales is not None
        layer.scales.dtype = torch.bfloat16


@pytest.mark.parametrize("strategy", ["ddp", "zero2"])
def test_the_plan_says_what_is_held(strategy: str) -> None:
    spec = planned(strategy)
    held = torch.float16 if strategy == "zero2" else torch.float32
    model = built(spec, torch.float16, held)
    sizes = decoder_of(SHAPE)
    assert sizes is not None
    found = sum(one.numel() * one.element_size() for one in model.parameters())
    per_layer = 2 * (256 + 16) * 4 + 4  # tables of values, and an offset
    scales = sum(one.numel() * one.element_size() for one in scale_tensors(model)) - per_layer // 2 * 14
    assert found + scales == pytest.approx(states(Engine(spec, sizes)).weights, rel=0.005)


def test_flops_and_the_saving_are_those_of_the_whole_layers() -> None:
    quantised, plain = (built(planned(quantize=kind), torch.float16) for kind in ("nf4", None))
    assert training_flops_per_sample(quantised) == training_flops_per_sample(plain)
    # What sharding saves is little beside 15 GiB of weights in 16 bits, and not beside 5.
    assert saving_note(60_000_000, 7_600_000_000, "zero2", 2) is not None
    assert saving_note(60_000_000, 7_600_000_000, "zero2", 2, weights=5_700_000_000) is None
    assert "weights in 4 bits are 192.0 KiB, and zero3 gathers them" in (note_of(quantised, planned("zero3")) or "")


def test_a_checkpoint_belongs_to_the_weights_before_they_are_packed() -> None:
    hashes = {built(planned(quantize=kind), dtype).frozen_hash for kind, dtype in KINDS}
    assert len(hashes) == 1
    assert hashes != {None}


def test_what_cannot_be_quantised() -> None:
    gpt2 = {"model_type": "gpt2", "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 512, "vocab_size": 272}
    with pytest.raises(UserError, match="GPT2LMHeadModel keeps its weights as"):
        built(planned(shape=gpt2), torch.float32)
    with pytest.raises(
        UserError, match=r"a rule trains model\.layers\.1\.self_attn\.q_proj\.base_layer\.weight, which"
    ):
        built(planned(trainable=[r"\.lora_", r"layers\.1\..*base_layer"]), torch.float32)
    with pytest.raises(ValueError, match="zeropp rounds weights to int8"):
        sft(strategy="zeropp")
    away = {"optimizer": "nvme", "params": "nvme", "nvme_path": "/nowhere"}
    with pytest.raises(
        ValueError, match=r"one by one, which DeepSpeed does not do on nvme: use strategy=zero3\+offload"
    ):
        sft(strategy={"name": "zero3", "offload": away})


def test_bitsandbytes_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'zerofit\[quantized\]'"):
        planned()


class TestMemoryCap:
    """`hardware.memory_cap`."""

    @pytest.mark.parametrize("text", ["11GiB", "11264MiB", 11, " 11.0 GiB", "11"])
    def test_sizes(self, text: Any) -> None:
        assert Limits(memory_cap=text).memory_cap == 11

    @pytest.mark.parametrize("text", ["11GB", "GiB", "", "-1GiB", 0, True, "11 GiB each"])
    def test_no_sizes(self, text: Any) -> None:
        with pytest.raises(ValueError, match="memory_cap"):
            Limits(memory_cap=text)

    def test_the_plan_counts_on_no_more(self) -> None:
        card = TURING.model_copy(update={"memory_gib": 140.0})
        spec = capped(sft(hardware={"memory_cap": "11GiB"}), card)
        assert spec.hardware.memory_gib == 11
        assert "ranks on RTX 2080 Ti of which 11 GiB are used, fp16" in headline(spec)
        assert Recipe.model_validate_json(spec.recipe.model_dump_json()) == spec.recipe

    def test_a_card_of_that_size_shows_a_little_less(self) -> None:
        card = TURING.model_copy(update={"memory_gib": 10.75})
        assert capped(sft(hardware={"memory_cap": "11GiB"}), card).hardware.memory_gib == 10.75
        with pytest.raises(UserError, match="memory_cap: 12 GiB are more than RTX 2080 Ti has, 10.75 GiB"):
            capped(sft(hardware={"memory_cap": "12GiB"}), card)

    def test_a_cpu_has_none_and_says_so(self) -> None:
        spec = capped(sft(hardware={"memory_cap": "11GiB"}), CPU)
        assert spec.hardware == CPU
        assert "(hardware.memory_cap is for GPUs: it does nothing here)" in headline(spec)


def capped(recipe: Recipe, hardware: Any) -> RunSpec:
    return make_plan(recipe, facts=PROMPTS, hardware=hardware, ranks=2, run_dir=Path("unused"))
