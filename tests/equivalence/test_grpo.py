"""GRPO trains the same under every strategy on recorded rollouts: whole models and adapters, with and without a KL."""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from cases import furthest, plan, recipe
from reference import Curve, rollout_reference
from safetensors.torch import load_file
from starts import asked_for, column, train_some
from test_sft import GRAD_NORM, LORA, LOSS, MODEL, PACKED, WEIGHT

from zerofit.config.schema import Recipe
from zerofit.plan.spec import RunSpec
from zerofit.train.engine import WEIGHTS

STEPS, WORLD = 6, 2
TEXT = {"source": "arithmetic", "problems": 40, "test_problems": 5, "max_length": 250}
GRPO: dict[str, Any] = {"rewards": ["recorded:worth"], "num_generations": 4, "sampling": {"temperature": 0.9}}
STRATEGIES = ("ddp", "fsdp2", "zero1", "zero2", "zero2+offload_optimizer", "zero3")


def small(model: dict[str, Any], strategy: str | dict[str, Any], micro: int, **grpo: Any) -> Recipe:
    return recipe(
        model,
        strategy,
        task="grpo",
        data=TEXT,
        grpo={**GRPO, **grpo},
        train={"max_steps": STEPS, "micro_batch": micro, "global_batch": 16},
        optimizer={"lr": 3e-3, "clip_grad": 1.0, "warmup": {"steps": 1}},
        evaluate={"micro_batch": 4, "every_steps": 3},
        checkpoint={"every_steps": 3},
    )


KINDS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "whole": (MODEL, {}),
    "lora": (LORA, {}),
    "whole-kl": (MODEL, {"beta": 0.3}),
    "lora-kl": (LORA, {"beta": 0.3}),
    "nf4-kl": (PACKED, {"beta": 0.3}),
}
RUNS: dict[str, tuple[str, Recipe]] = {
    f"{kind}-{strategy}": (kind, small(model, strategy, 2, **grpo))
    for kind, (model, grpo) in KINDS.items()
    for strategy in STRATEGIES
    if not grpo or strategy in ("ddp", "fsdp2", "zero2", "zero3")
}
RUNS["whole-ddp-at-once"] = ("whole", small(MODEL, "ddp", 8))
LOW = {
    f"nf4-kl-{name}-bf16": ("nf4-kl", small(PACKED, {"name": name, "precision": "bf16"}, 2, beta=0.3))
    for name in ("ddp", "fsdp2", "zero2", "zero3")
}
RUNS |= LOW
SHORT = ("whole-ddp", "whole-kl-fsdp2", "lora-kl-zero3")
NAMES = [pytest.param(name, marks=[] if name in SHORT else pytest.mark.thorough) for name in RUNS]
RESUMED = ("whole-kl-fsdp2", "lora-kl-zero3")


@pytest.fixture(scope="module")
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, RunSpec]:
    """Those that are asked for."""
    recipes = {name: made for name, (_, made) in RUNS.items() if name in asked_for(request)}
    return train_some(recipes, RESUMED, 3, tmp_path_factory.mktemp("grpo"), recorded=True)


@cache
def oracle(kind: str, **grpo: Any) -> Curve:
    model, own = KINDS[kind]
    return rollout_reference(plan(small(model, "ddp", 8, **own, **grpo), 1, Path("unused")))


@pytest.mark.parametrize("name", NAMES)
def test_the_same_training(trained: dict[str, RunSpec], name: str) -> None:
    spec, right = trained[name], oracle(RUNS[name][0])
    assert len(right.loss) == STEPS
    if name in LOW:
        assert furthest(column(spec, "grad_norm"), right.grad_norm) < 0.05
        return
    # A loss of advantages may be next to nothing, and a KL is a difference of log-probabilities: theirs is the scale.
    scale = max(0.1, *map(abs, right.loss)) + spec.recipe.grpo.beta * math.log(MODEL["shape"]["vocab_size"])
    losses = column(spec, "loss")
    assert max(abs(one - other) for one, other in zip(losses, right.loss, strict=True)) < LOSS * scale
    assert furthest(column(spec, "grad_norm"), right.grad_norm) < GRAD_NORM
    held = load_file(spec.run_dir / "checkpoints" / f"step-{STEPS:06d}" / WEIGHTS)
    assert right.weights.keys() <= held.keys()
    for key, value in right.weights.items():
        assert (held[key] - value).abs().max() < WEIGHT, key


@pytest.mark.parametrize("name", [p for p in NAMES if p.values[0] in RESUMED])
def test_it_goes_on_as_if_never_stopped(trained: dict[str, RunSpec], name: str) -> None:
    again, whole = column(trained[f"{name}-resumed"], "grad_norm"), column(trained[name], "grad_norm")[3:]
    assert again == pytest.approx(whole, rel=1e-6)


def test_the_reference_discriminates() -> None:
    plain, other = oracle("whole-kl"), oracle("whole")
    assert furthest(plain.grad_norm[1:], other.grad_norm[1:]) > 10 * GRAD_NORM
