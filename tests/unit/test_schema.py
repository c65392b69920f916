from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import ValidationError

from zerofit.config.json_schema import schema_json, short_strategies
from zerofit.config.model import DEFAULT_RULES
from zerofit.config.optimizer import Optimizer
from zerofit.config.schema import Recipe
from zerofit.config.section import Section
from zerofit.config.strategy import Strategy

RAW: dict[str, Any] = {
    "model": {"kind": "patch_lm", "shape": "qwen3-tiny", "patch_size": 2},
    "data": {"source": "folder", "path": "x", "augment": {"crop_scale": [0.5, 1.0], "randaugment": [2, 9]}},
    "train": {"epochs": 2, "micro_batch": 2, "global_batch": 4},
    "optimizer": {"blr": 1e-3, "warmup": {"fraction": 0.1}},
    "strategy": {"name": "zero3", "deepspeed": {"zero_optimization": {"sub_group_size": 1}}},
}


def test_a_recipe_survives_json() -> None:
    recipe = Recipe.model_validate(RAW)
    assert Recipe.model_validate_json(recipe.model_dump_json()) == recipe


def test_a_recipe_is_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Recipe.model_validate(RAW).train.seed = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"name": "single", "offload": {"optimizer": "cpu"}}, "cannot offload"),
        ({"name": "fsdp2", "offload": {"optimizer": "nvme", "params": "nvme", "nvme_path": "/x"}}, "use zero3"),
        ({"name": "fsdp2", "offload": {"optimizer": "cpu"}}, "cannot offload the optimizer alone"),
        ({"name": "zero2", "offload": {"params": "cpu"}}, "keeps whole weights"),
        ({"name": "zero2", "offload": {"optimizer": "nvme", "nvme_path": "/x"}}, "nvme needs zero3"),
        ({"name": "zero3", "offload": {"optimizer": "nvme"}}, "nvme needs nvme_path"),
        ({"name": "ddp", "deepspeed": {}}, "need a ZeRO strategy, not ddp"),
    ],
)
def test_impossible_strategies_are_refused_with_the_reason(fields: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        Strategy.model_validate(fields)


@pytest.mark.parametrize(
    "fields", [{"lr": 1, "blr": 1}, {}, {"lr": float("inf")}, {"lr": True}, {"lr": 1, "betas": [0.9, 1.0]}]
)
def test_impossible_optimizers_are_refused(fields: dict[str, Any]) -> None:  # fmt: skip
    with pytest.raises(ValidationError):
        Optimizer.model_validate(fields)


@pytest.mark.parametrize(
    ("parameter", "decays"),
    [
        ("backbone.layers.0.self_attn.q_proj.weight", True),
        ("backbone.layers.0.self_attn.q_norm.weight", False),
        ("backbone.layers.0.input_layernorm.weight", False),
        ("backbone.h.0.ln_1.weight", False),
        ("backbone.h.0.attn.c_attn.bias", False),
        ("backbone.embeddings.position_embeddings", False),
        ("backbone.embeddings.cls_token", False),
        ("patch_embedding.weight", True),
        ("head.weight", True),
    ],
)
def test_default_rules_spare_biases_norms_and_tokens_from_decay(parameter: str, decays: bool) -> None:
    rule = next(rule for rule in DEFAULT_RULES if re.search(rule.pattern, parameter))
    assert (rule.weight_decay is None) == decays


def sections(base: type[Section] = Section) -> Iterator[type[Section]]:
    for section in base.__subclasses__():
        yield section
        yield from sections(section)


def test_every_field_says_what_it_is() -> None:
    for section in sections():
        if section.__module__ == Recipe.__module__:
            assert [name for name, field in section.model_fields.items() if not field.description] == []


def test_the_json_schema_bounds_numbers_and_takes_short_strategies() -> None:
    schema = schema_json()
    assert schema["$defs"]["Train"]["properties"]["micro_batch"]["anyOf"][0]["minimum"] == 1
    assert schema["$defs"]["Train"]["additionalProperties"] is False
    short, mapping = schema["properties"]["strategy"]["anyOf"]
    assert short["enum"] == ["auto", *short_strategies()]
    assert mapping == {"$ref": "#/$defs/Strategy"}
    assert {"single", "zero2+offload_optimizer", "zero3+offload_all", "fsdp2+offload_all"} < set(short["enum"])
    assert "zero2+offload_all" not in short["enum"]


@pytest.mark.parametrize("short", ["trackio", ["trackio", "wandb", "trackio"], {"to": ["trackio"], "every": 5}])
def test_trackers_have_short_forms(short: Any) -> None:
    track = Recipe.model_validate({**RAW, "track": short}).track
    wanted = {"trackio": ("trackio",)}.get(
        str(short), ("trackio", "wandb") if isinstance(short, list) else ("trackio",)
    )
    assert (track.to, track.every) == (wanted, 5 if isinstance(short, dict) else 1)
    one, several, mapping = schema_json()["properties"]["track"]["anyOf"]
    assert one["enum"] == several["items"]["enum"] == ["trackio", "wandb", "tensorboard", "mlflow"]
    assert mapping == {"$ref": "#/$defs/Track"}
