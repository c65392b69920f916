"""LARS in one process, the groups that it is given, and what is said about the memory of optimizer state."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import CPU, QWEN3, build, tiny_spec

from zerofit.models.trainable import param_groups
from zerofit.train.lars import Lars, real_elements
from zerofit.train.optimizers import OPTIMIZERS, layer_by_layer, make_optimizer
from zerofit.train.saving import note_of, saving_note
from zerofit.train.strategy import engine_for

LM: dict[str, Any] = {"kind": "patch_lm", "shape": QWEN3, "pool": "cls"}


def lars_of(weights: torch.Tensor, gradient: torch.Tensor, weight_decay: float = 0.5, adapt: bool = True) -> Lars:
    parameter = torch.nn.Parameter(weights)
    parameter.grad = gradient
    group = {"params": [parameter], "adapt": adapt, "numel": weights.numel(), "weight_decay": weight_decay}
    return Lars([group], lr=0.1, momentum=0.9, trust_coefficient=0.01, flat_sharded=False, device=CPU)


def after(optimizer: Lars, steps: int = 1) -> list[float]:
    for _ in range(steps):
        optimizer.step()
    parameter: torch.Tensor = optimizer.param_groups[0]["params"][0]
    return parameter.flatten().tolist()


def test_a_matrix_by_hand() -> None:
    # |p| = 5; g + 0.5 p = (1.5, 2) + (1.5, 2) = (3, 4), norm 5: the ratio is 0.01 * 5 / 5, the step (3, 4) / 1000
    weights, gradient = torch.tensor([[3.0, 4.0]]), torch.tensor([[1.5, 2.0]])
    assert after(lars_of(weights.clone(), gradient)) == pytest.approx([2.997, 3.996])
    # The second ratio is 0.01 * 4.995 / 4.9975, the momentum 0.9 (3, 4) / 100 + 0.01 * 4.995 / 4.9975 (2.9985, 3.998)
    momentum = 0.9 * 0.03 + 0.01 * 4.995 / 4.9975 * 2.9985
    assert after(lars_of(weights.clone(), gradient), steps=2)[0] == pytest.approx(2.997 - 0.1 * momentum)


def test_a_vector_is_neither_scaled_nor_decayed() -> None:
    vector = lars_of(torch.tensor([3.0, 4.0]), torch.tensor([1.5, 2.0]), adapt=False)
    assert after(vector) == pytest.approx([2.85, 3.8])


@pytest.mark.parametrize(("weight", "gradient"), [(0.0, 2.0), (3.0, 0.0)])
def test_without_a_norm_the_ratio_is_1(weight: float, gradient: float) -> None:
    layer = lars_of(torch.tensor([[weight]]), torch.tensor([[gradient]]), weight_decay=0.0)
    assert after(layer) == pytest.approx([weight - 0.1 * gradient])


@given(st.integers(1, 50), st.integers(1, 8), st.integers(0, 3))
def test_every_element_is_in_one_shard(numel: int, ranks: int, more: int) -> None:
    shard = -(-numel // ranks) + more
    found = [real_elements(numel, shard, rank) for rank in range(ranks)]
    assert sum(found) == numel
    assert all(0 <= one <= shard for one in found)
    assert found == sorted(found, reverse=True)  # padding comes last


def test_layers_keep_their_order_and_tell_what_a_flat_shard_hides() -> None:
    model, spec = build(LM), tiny_spec(LM, layer_decay=0.5, name="lars", weight_decay=0.1)
    together = param_groups(model, spec)
    layers = layer_by_layer(together, lambda parameter: parameter.shape)
    assert layers[0]["lr"] == spec.lr  # the rate that is logged
    kept = [parameter for group in together for parameter in group["params"]]
    assert [id(parameter) for layer in layers for parameter in layer["params"]] == [id(one) for one in kept]
    for layer, parameter in zip(layers, kept, strict=True):
        assert (layer["adapt"], layer["numel"]) == (parameter.ndim > 1, parameter.numel())
    # As under zero.Init, where parameters are empty and have their shape elsewhere.
    assert {one["numel"] for one in layer_by_layer(together, lambda _: torch.Size([3, 5]))} == {15}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_optimizer_has_the_recipes_settings(name: str) -> None:
    own = {"adamw": {"betas": (0.8, 0.9), "eps": 1e-6}, "sgd": {"momentum": 0.7}}
    given_ = own.get(name, {"momentum": 0.7, "trust_coefficient": 0.02})
    spec = tiny_spec(LM, name=name, **given_)
    optimizer = make_optimizer(build(LM), spec, engine_for(spec, CPU))
    assert type(optimizer) is OPTIMIZERS[name]
    assert {key: optimizer.param_groups[0][key] for key in given_} == given_
    assert optimizer.param_groups[0]["lr"] == spec.lr


def test_a_saving_that_is_none_is_said_with_its_figures() -> None:
    note = saving_note(4096 * 100 + 100, 8_000_000_000, "zero2", ranks=4, optimizer="lars")
    assert note is not None
    assert "saves 2.3 MiB a rank" in note
    assert "409,700 of 8,000,000,000" in note
    assert "lars state are 3.1 MiB" in note
    assert "\n" not in note


def test_the_saving_of_a_run_is_counted_on_its_model() -> None:
    section = {**LM, "trainable": [{"pattern": r"^head\."}, {"pattern": r".", "freeze": True}]}
    spec = tiny_spec(section, strategy={"name": "zero2"})
    model = build(section)
    note = note_of(model, spec)
    assert note is not None
    assert f"165 of {sum(parameter.numel() for parameter in model.parameters()):,}" in note  # 32 x 5 + 5
    assert note_of(model, tiny_spec(section)) is None


@pytest.mark.parametrize(
    ("trained", "strategy", "ranks"), [(10**9, "zero2", 4), (1000, "ddp", 4), (1000, "fsdp2", 4), (1000, "zero3", 4)]
)
def test_nothing_is_said_of_real_savings_and_of_other_strategies(trained: int, strategy: str, ranks: int) -> None:
    assert saving_note(trained, 10**9, strategy, ranks) is None


def test_one_rank_saves_nothing() -> None:
    note = saving_note(10**9, 10**9, "zero1", ranks=1)
    assert note is not None
    assert note.startswith("zero1 saves 0 B a rank")
