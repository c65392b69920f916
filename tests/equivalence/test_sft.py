"""Tokens are learnt the same under every strategy: whole models and adapters, padded rows and packs.

The reference takes each row alone, so it also says that padding and neighbours in a pack change nothing, and that each
token of the global batch counts as much as any other.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
from cases import QWEN3, furthest, plan, recipe
from reference import Curve, language_reference
from safetensors.torch import load_file
from starts import asked_for, column, outcome_of, train_some

from zerofit.config.schema import Recipe
from zerofit.plan.spec import RunSpec
from zerofit.train.engine import WEIGHTS

STEPS, WORLD = 10, 2
SHAPE = {**QWEN3, "vocab_size": 272, "max_position_embeddings": 640}
MODEL = {"kind": "causal_lm", "tokenizer": "bytes", "shape": {**SHAPE, "tie_word_embeddings": True}}
UNTIED = {**MODEL, "shape": {**SHAPE, "tie_word_embeddings": False}}
LORA = {**MODEL, "lora": {"rank": 3, "alpha": 12}}
PACKED = {**LORA, "quantize": "nf4"}  # more of it in test_qlora.py
TEXT = {"source": "arithmetic", "problems": 96, "test_problems": 11, "max_length": 420}
STRATEGIES = ("ddp", "fsdp2", "zero1", "zero2", "zero2+offload_optimizer", "zero3")
FEWER = {"whole": STRATEGIES, "lora": STRATEGIES, "nf4": ("fsdp2", "zero3")}
LOSS, GRAD_NORM, WEIGHT = 1e-6, 3e-6, 3e-6  # relative, relative, absolute; as in test_equivalence.py


def small(model: dict[str, Any], strategy: str | dict[str, Any], micro: int, **data: Any) -> Recipe:
    return recipe(
        model,
        strategy,
        task="sft",
        data={**TEXT, **data},
        train={"max_steps": STEPS, "micro_batch": micro, "global_batch": 8},
        optimizer={"lr": 3e-3, "clip_grad": 1.0},
        evaluate={"micro_batch": 3},
        checkpoint={"every_steps": 5},
    )


KINDS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "whole": (MODEL, {}),
    "untied": (UNTIED, {}),
    "packed": (MODEL, {"packing": True, "max_length": 600}),
    "lora": (LORA, {}),
    "lora-packed": (LORA, {"packing": True, "max_length": 600}),
    "nf4": (PACKED, {}),
}
RUNS: dict[str, tuple[str, Recipe]] = {
    f"{kind}-{strategy}": (kind, small(model, strategy, 2, **data))
    for kind, (model, data) in KINDS.items()
    for strategy in STRATEGIES
    if strategy in FEWER.get(kind, ("ddp", "fsdp2", "zero2", "zero3"))
}
for _engine in ("fsdp2", "zero3"):
    checkpointing = {"name": _engine, "activation_checkpointing": "full"}
    RUNS[f"whole-{_engine}-checkpointing"] = ("whole", small(MODEL, checkpointing, 2))
RUNS["whole-ddp-at-once"] = ("whole", small(MODEL, "ddp", 4))
SHORT = ("whole-ddp", "lora-zero3", "packed-fsdp2", "packed-zero2", "nf4-fsdp2", "nf4-zero3")
NAMES = [pytest.param(name, marks=[] if name in SHORT else pytest.mark.thorough) for name in RUNS]
RESUMED = ("whole-ddp", "lora-zero3", "packed-fsdp2")


@pytest.fixture(scope="module")
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, RunSpec]:
    """Those that are asked for."""
    recipes = {name: made for name, (_, made) in RUNS.items() if name in asked_for(request)}
    return train_some(recipes, RESUMED, 5, tmp_path_factory.mktemp("sft"))


@cache
def oracle(kind: str, **lora: Any) -> Curve:
    model, data = KINDS[kind]
    return language_reference(plan(small({**model, **lora}, "ddp", 4, **data), 1, Path("unused")))


@pytest.mark.parametrize("name", NAMES)
def test_the_same_training(trained: dict[str, RunSpec], name: str) -> None:
    spec, right = trained[name], oracle(RUNS[name][0])
    assert len(right.loss) == STEPS
    assert furthest(column(spec, "loss"), right.loss) < LOSS
    assert furthest(column(spec, "grad_norm"), right.grad_norm) < GRAD_NORM
    assert outcome_of(spec)["test"]["loss"] == pytest.approx(right.test_loss, rel=LOSS)
    assert right.loss[-1] < right.loss[0]  # it learns


@pytest.mark.parametrize("name", NAMES)
def test_the_same_weights(trained: dict[str, RunSpec], name: str) -> None:
    spec, right = trained[name], oracle(RUNS[name][0])
    held = load_file(spec.run_dir / "checkpoints" / f"step-{STEPS:06d}" / WEIGHTS)
    assert right.weights.keys() <= held.keys()
    for key, value in right.weights.items():
        assert (held[key] - value).abs().max() < WEIGHT, key


@pytest.mark.parametrize("name", [p for p in NAMES if p.values[0] in RESUMED])
def test_it_goes_on_as_if_never_stopped(trained: dict[str, RunSpec], name: str) -> None:
    spec = trained[f"{name}-resumed"]
    assert column(spec, "loss") == pytest.approx(column(trained[name], "loss")[5:], rel=1e-7)
    assert outcome_of(spec)["test"]["loss"] == pytest.approx(outcome_of(trained[name])["test"]["loss"], rel=1e-7)


def test_packs_hold_several_rows() -> None:
    spec = plan(RUNS["packed-fsdp2"][1], WORLD, Path("unused"))
    assert spec.text.rows > 1.5 * spec.text.train


def test_models_are_tied_as_their_config_says(trained: dict[str, RunSpec]) -> None:
    for name, spec in trained.items():
        held = load_file(spec.run_dir / "checkpoints" / f"step-{STEPS:06d}" / WEIGHTS)
        head = held.get("lm_head.weight")
        if head is not None and not name.startswith("lora"):
            assert head.equal(held["model.embed_tokens.weight"]) == (not name.startswith("untied")), name
