"""The parts of a model without the model: every parameter of every shipped recipe, and what rules train of it."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import pytest
import torch
from plan_examples import gpus
from transformers.initialization import no_init_weights

from zerofit.config.load import load_job, recipe_names
from zerofit.models.adapters import add_adapters, target_layers
from zerofit.models.build import KINDS
from zerofit.models.config import config_from_fields
from zerofit.models.placement import parameters_on_meta
from zerofit.models.trainable import apply_rules
from zerofit.plan.anatomy import anatomy_of
from zerofit.plan.assumed import assumed_facts
from zerofit.plan.build import make_plan
from zerofit.plan.rules import rules_of
from zerofit.plan.shaped import shaped
from zerofit.plan.spec import RunSpec

STAGES = [(name, number) for name in recipe_names() for number in range(len(load_job(name).stages))]
LEFT_OUT = ("context_norm", "mask_token")
"""Of the point encoder's first block, and what no image of ours needs."""


def planned(name: str, number: int = 0, *overrides: str) -> RunSpec:
    said = load_job(name, overrides).stages[number]
    return make_plan(said, facts=assumed_facts(said), hardware=gpus(8), ranks=1, run_dir=Path("runs"))


@pytest.mark.parametrize(("name", "number"), STAGES)
def test_every_parameter_is_known_and_who_is_trained(name: str, number: int) -> None:
    spec = planned(name, number)
    found, whole = anatomy_of(spec), shaped(spec)
    assert anatomy_of(whole).trained == found.trained, "a model of the hub is the shape that it is known by"
    adjust, kind = KINDS[whole.recipe.model.kind]
    assert whole.shape is not None
    config = adjust(config_from_fields(whole.shape), whole)
    with no_init_weights(), parameters_on_meta():
        built = kind(deepcopy(config), whole, torch.float32)
        lora = whole.recipe.model.lora
        if lora is not None:
            add_adapters(built, lora, target_layers(built, lora))
    apply_rules(built, rules_of(whole.recipe))
    named = {one: value for one, value in built.named_parameters() if not any(part in one for part in LEFT_OUT)}
    added = 0 if lora is None else found.adapters(lora.rank, lora.targets)
    assert found.parameters + added == sum(value.numel() for value in named.values())
    assert found.trained == {one: value.numel() for one, value in named.items() if value.requires_grad}
    tokens = found.main.tokens
    assert whole.recipe.task not in ("classify", "probe") or tokens == built.tokens


@pytest.mark.parametrize("shape", ["gpt2", "gemma-2-2b", "llama-3.2-1b", "qwen2.5-0.5b"])
def test_families_are_known(shape: str) -> None:
    spec = planned("digits", 0, f"model.shape={shape}")
    adjust, kind = KINDS["patch_lm"]
    assert spec.shape is not None
    with no_init_weights(), parameters_on_meta():
        built = kind(adjust(config_from_fields(spec.shape), spec), spec, torch.float32)
    assert anatomy_of(spec).trained == {one: value.numel() for one, value in built.named_parameters()}
