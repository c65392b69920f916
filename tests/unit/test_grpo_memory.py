"""The closed form of a GRPO step's memory: against arithmetic, against what autograd really saves, and its shape."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from language_examples import HOPPER, PROMPTS, TURING, grpo
from plan_examples import CPU

from zerofit.config.schema import Recipe
from zerofit.plan import rollout_engine
from zerofit.plan.build import make_plan
from zerofit.plan.decoder import decoder_of
from zerofit.plan.grpo_advice import advice, highest, largest_rollout
from zerofit.plan.grpo_memory import Stage, rollout_batch, saved, stages
from zerofit.plan.hardware import GIB
from zerofit.plan.spec import Hardware, RunSpec
from zerofit.plan.states import NF4, Engine, states

WHOLE = {"quantize": None, "lora": None}


def planned(recipe: Recipe, hardware: Hardware = TURING, ranks: int = 2, longest: int = 512) -> RunSpec:
    facts = PROMPTS.model_copy(update={"longest": longest})
    return make_plan(recipe, facts=facts, hardware=hardware, ranks=ranks, run_dir=PROMPTS.samples)


def by_name(spec: RunSpec) -> dict[str, Stage]:
    return {stage.name: stage for stage in stages(spec) or ()}


def test_a_4_bit_model_of_7_b_on_11_gib() -> None:
    every = by_name(planned(grpo()))
    assert list(every) == ["rollout", "backward", "update"], "no reference, so nothing is scored without a gradient"
    blocks, rest = 28 * 233_046_016, 7_615_616_512 - 28 * 233_046_016
    adapters = 28 * 16 * (2 * (3584 + 3584) + 2 * (3584 + 512) + 3 * (3584 + 18944))
    rollout = every["rollout"].parts
    assert rollout["weights"] == blocks * NF4 + rest * 2 + adapters * 4
    assert rollout["optimizer"] == adapters * 8
    assert rollout["KV cache"] == 2 * 28 * 4 * 128 * 2 * 32 * (512 + 2048)
    assert rollout["gathered weights"] == every["backward"].parts["gathered weights"] == 0
    assert every["backward"].parts["logits"] == 2048 * 32768 * 2 + 2048 * 3584 * (2 + 4)


@pytest.mark.parametrize(("strategy", "gib"), [("zero2", 53.5), ("zero3", 37.3 - 5.2)])
def test_states_at_the_update_are_those_of_a_replayed_step(strategy: str, gib: float) -> None:
    """A replay of Qwen3-8B's fine-tuning on 4 ranks, a micro-batch a step, has so much at the optimizer's step.

    ZeRO-3's was of sub-groups of 1e9 elements (here 1e8: 5.0 GiB less) and of larger buckets.
    """
    recipe = grpo(model={"shape": "qwen3-8b", **WHOLE}, strategy=strategy, train={"micro_batch": 4, "global_batch": 16})
    assert by_name(planned(recipe, HOPPER, 4))["update"].total / GIB == pytest.approx(gib, rel=0.01)


@pytest.mark.parametrize("family", ["qwen2", "qwen3"])
@pytest.mark.parametrize("adapted", [False, True])
def test_a_block_saves_what_autograd_does(family: str, adapted: bool) -> None:
    fields = {
        "model_type": family,
        "hidden_size": 256,
        "num_hidden_layers": 2,
        "num_attention_heads": 8,
        "num_key_value_heads": 2,
        "head_dim": 32,
        "intermediate_size": 768,
        "hidden_act": "silu",
        "max_position_embeddings": 512,
        "vocab_size": 64,
        "tie_word_embeddings": False,
    }
    model = {"shape": fields, "quantize": None, **({} if adapted else {"lora": None})}
    recipe = grpo(model=model, strategy={"name": "zero2", "precision": "bf16"}, grpo={"sampling": {"max_tokens": 16}})
    sizes = decoder_of(fields)
    assert sizes is not None
    formula = saved(Engine(planned(recipe, HOPPER, longest=100), sizes))
    one, two = (_saved({**fields, "num_hidden_layers": layers}, adapted) for layers in (1, 2))
    assert formula == pytest.approx(two - one, rel=0.025)


def _saved(fields: dict[str, Any], adapted: bool) -> float:
    """Bytes a token that a forward pass leaves for backward, parameters apart."""
    from peft import LoraConfig, inject_adapter_in_model
    from transformers import AutoConfig, AutoModelForCausalLM

    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**fields), dtype=torch.bfloat16)
    if adapted:
        inject_adapter_in_model(LoraConfig(r=2, target_modules=r".*_proj"), model)
        model.requires_grad_(False)
        for name, parameter in model.named_parameters():
            parameter.data = parameter.data.bfloat16()
            parameter.requires_grad_("lora" in name)
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    found = dict[int, torch.UntypedStorage]()

    def pack(value: torch.Tensor) -> torch.Tensor:
        found[value.untyped_storage().data_ptr()] = value.untyped_storage()
        return value

    batch, length = 2, 128
    mask = torch.ones(batch, length, dtype=torch.long)
    mask[0, :5] = 0  # a padded prompt
    vectors = torch.randn(batch, length, fields["hidden_size"], dtype=torch.bfloat16, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda value: value):
        kept = model(inputs_embeds=vectors, attention_mask=mask, logits_to_keep=1)
    size = sum(storage.nbytes() for place, storage in found.items() if place not in own)
    del kept
    return size / (batch * length)


strategies = st.sampled_from(["ddp", "zero1", "zero2", "zero3", "fsdp2"])


@settings(max_examples=40)
@given(
    strategy=strategies,
    quantised=st.booleans(),
    adapted=st.booleans(),
    beta=st.sampled_from([0.0, 0.04]),
    longest=st.integers(16, 900),
    tokens=st.integers(16, 4096),
    micro=st.sampled_from([1, 2, 4]),
    more=st.sampled_from(["longest", "tokens", "micro", "beta", "batch"]),
)
def test_more_work_never_needs_less_memory(
    strategy: str, quantised: bool, adapted: bool, beta: float, longest: int, tokens: int, micro: int, more: str
) -> None:
    def at(**changes: Any) -> dict[str, Stage]:
        said = {"longest": longest, "tokens": tokens, "micro": micro, "beta": beta, "batch": 4, **changes}
        recipe = grpo(
            model={"quantize": "nf4" if quantised and adapted else None, **({} if adapted else {"lora": None})},
            strategy={"name": strategy, "activation_checkpointing": "selective"},
            train={"micro_batch": said["micro"], "global_batch": 128},
            grpo={
                "beta": said["beta"],
                "sampling": {"max_tokens": said["tokens"]},
                "rollout": {"batch": said["batch"]},
            },
        )
        return by_name(planned(recipe, HOPPER, 4, said["longest"]))

    grown = {"longest": longest + 100, "tokens": tokens + 100, "micro": 2 * micro, "beta": beta + 0.1, "batch": 8}
    before, after = at(), at(**{more: grown[more]})
    assert all(part >= 0 for stage in before.values() for part in stage.parts.values())
    for name, stage in before.items():
        assert after[name].total >= stage.total
    if more in ("tokens", "batch"):
        assert after["rollout"].parts["KV cache"] > before["rollout"].parts["KV cache"]


@pytest.mark.parametrize("strategy", ["zero1", "zero2", "zero3", "fsdp2"])
@pytest.mark.parametrize("ranks", [1, 4])
def test_more_ranks_hold_less_each(strategy: str, ranks: int) -> None:
    def held(ranks: int) -> int:
        spec = planned(grpo(model=WHOLE, strategy=strategy), HOPPER, ranks)
        sizes = decoder_of(spec.shape)
        assert sizes is not None
        return states(Engine(spec, sizes)).total

    assert held(2 * ranks) < held(ranks)


def test_the_rollout_that_is_advised_is_the_largest_that_fits() -> None:
    spec = planned(grpo())
    needed = {
        size: by_name(planned(grpo(grpo={"rollout": {"batch": size}})))["rollout"].total
        for size in range(1, rollout_batch(spec) + 1)
    }
    for limit in (5, 6.5, 7, 9, 11, 40):
        fitting = [size for size, total in needed.items() if total <= limit * GIB]
        assert largest_rollout(spec, int(limit * GIB)) == max(fitting, default=None)


@pytest.mark.parametrize(
    ("changes", "hardware", "said"),
    [
        ({}, TURING, ["peak: rollout, 10.8 GiB of 11 a card: weights 5.3, KV cache 4.4", "use grpo.rollout.batch="]),
        ({"grpo": {"rollout": {"batch": 8}}}, TURING, ["peak: rollout, 7.5 GiB of 11 a card"]),
        (
            {"strategy": "zero3", "grpo": {"rollout": {"batch": 8}}},
            TURING,
            ["peak: ", "may not fit", "use strategy=ddp or zero2: a base in 4 bits is small (blocks 3.1 GiB whole)"],
        ),
        (
            {"strategy": {"activation_checkpointing": "none"}, "grpo": {"beta": 0.1}},
            TURING,
            ["peak: backward, ", "use strategy.activation_checkpointing=full"],
        ),
        ({"model": {"quantize": None}}, TURING, ["peak: ", "use model.quantize=nf4"]),
        (
            {"model": WHOLE},
            TURING,
            ["peak: ", "use model.lora, which has hardly any optimizer state, or strategy=zero3"],
        ),
        (
            {"model": {**WHOLE, "shape": "qwen3-4b"}, "grpo": {"rollout": {"engine": "vllm", "vllm_memory": 0.6}}},
            HOPPER,
            ["vLLM 83.9", "lower grpo.rollout.vllm_memory"],
        ),
        (
            {"model": {"shape": None, "pretrained": "someone/model"}},
            HOPPER,
            ["not predicted for someone/model"],
        ),
    ],
)
def test_what_is_advised(
    changes: dict[str, Any], hardware: Hardware, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rollout_engine, "vllm_is_installed", lambda: True)
    lines = advice(planned(grpo(**changes), hardware))
    assert len(lines) == len(said)
    for line, part in zip(lines, said, strict=True):
        assert part in line
        assert "\n" not in line


def test_what_is_advised_helps() -> None:
    for changes, better in (
        ({"strategy": "zero3"}, {"strategy": "ddp"}),
        ({"strategy": {"activation_checkpointing": "none"}}, {}),
        ({}, {"grpo": {"rollout": {"batch": 8}}}),
    ):
        before, after = stages(planned(grpo(**changes))), stages(planned(grpo(**better)))
        assert before is not None
        assert after is not None
        assert highest(after).total < highest(before).total


def test_a_cpu_gets_no_advice_and_a_mixture_of_experts_none_that_is_wrong() -> None:
    assert advice(planned(grpo(), CPU)) == []
    assert decoder_of({"model_type": "qwen3_moe", "hidden_size": 8, "num_experts": 4}) is None
    assert decoder_of({"model_type": "deepseek_v3", "hidden_size": 8, "n_routed_experts": 4}) is None
