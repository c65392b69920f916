"""What may be combined with a strategy changes nothing either: offload, recomputation, pretrained weights, rules.

Each run on two ranks against the plain loop in reference.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from cases import PATCH_LM, QWEN3, SMALL, VIT, furthest, plan, recipe
from reference import CPU, reference
from starts import column, train_together
from transformers import GPT2Config, GPT2LMHeadModel, Qwen3Config, Qwen3ForCausalLM

from zerofit.config.model import DEFAULT_RULES
from zerofit.config.schema import Recipe
from zerofit.models.build import build_model
from zerofit.models.placement import WholePlacement
from zerofit.plan.spec import RunSpec

pytestmark = pytest.mark.thorough

STEPS, MICRO, WORLD = 12, 4, 2  # so two micro-batches a step

GPT2 = {"model_type": "gpt2", "n_embd": 16, "n_layer": 2, "n_head": 2, "n_inner": 33, "n_positions": 32}
FAMILIES: dict[str, dict[str, Any]] = {
    "gpt2": GPT2,
    "llama": {**SMALL, "model_type": "llama", "num_key_value_heads": 1},
    "gemma2": {**SMALL, "model_type": "gemma2", "num_key_value_heads": 1, "head_dim": 8, "query_pre_attn_scalar": 8},
    "phi": {**SMALL, "model_type": "phi"},
    "opt": {
        "model_type": "opt",
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "ffn_dim": 33,
        "word_embed_proj_dim": 16,
    },
}
PRETRAINED = {"qwen3": (Qwen3Config, Qwen3ForCausalLM, QWEN3), "gpt2": (GPT2Config, GPT2LMHeadModel, GPT2)}
# The embeddings and half of a block frozen, and three learning rates besides layer-wise decay.
RULES = [
    {"pattern": r"embed|layers\.0\..*(q_proj|norm|mlp)", "freeze": True},
    {"pattern": r"^head\.", "lr_scale": 3.0, "weight_decay": 0.0},
    {"pattern": r"v_proj", "lr_scale": 0.5},
    *(rule.model_dump() for rule in DEFAULT_RULES),
]


def variants(pretrained: Path) -> Iterator[tuple[str, Recipe]]:
    """(name, recipe) of every run."""
    for name in ("zero3+offload_all", "fsdp2+offload_all"):
        yield name, small(PATCH_LM, name)
    for name in ("ddp", "fsdp2", "zero3"):
        for mode in ("selective", "full"):
            for model in (VIT, PATCH_LM):
                strategy = {"name": name, "activation_checkpointing": mode}
                yield f"{model['kind']}-{name}-{mode}-checkpointing", small(model, strategy)
    for name in ("ddp", "fsdp2", "zero2", "zero3"):
        for family in PRETRAINED:
            model = {"kind": "patch_lm", "patch_size": 4, "pretrained": str(pretrained / family)}
            yield f"pretrained-{family}-{name}", small(model, name)
    for name in ("fsdp2", "zero3"):
        for family, shape in FAMILIES.items():
            yield f"{family}-{name}", small({"kind": "patch_lm", "patch_size": 4, "shape": shape}, name)
    for name in ("fsdp2", "zero3"):
        yield f"bidirectional-{name}", small({**PATCH_LM, "attention_mask": "bidirectional", "pool": "cls"}, name)
    for name in ("ddp", "fsdp2", "zero2", "zero3"):
        for model in (VIT, PATCH_LM):
            made = small({**model, "trainable": RULES}, name, optimizer={"layer_decay": 0.6})
            yield f"{model['kind']}-rules-{name}", made


def small(model: dict[str, Any], strategy: str | dict[str, Any], **sections: Any) -> Recipe:
    return recipe(model, strategy, train={"max_steps": STEPS, "micro_batch": MICRO}, **sections)


NAMES = [name for name, _ in variants(Path("unused"))]
SHORT = [name for name in NAMES if "zero3" in name]  # the engine that changes most


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory that holds one saved model for each of PRETRAINED."""
    directory = tmp_path_factory.mktemp("pretrained")
    for family, (config, model, shape) in PRETRAINED.items():
        torch.manual_seed(len(family))
        model(config(**shape, vocab_size=50)).save_pretrained(directory / family)
    return directory


@pytest.fixture(scope="module")
def trained(
    request: pytest.FixtureRequest, pretrained: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, RunSpec]:
    """Those whose tests were selected, trained in one start."""
    directory = tmp_path_factory.mktemp("variants")
    asked = {item.callspec.params.get("name") for item in request.session.items if item.path == Path(__file__)}
    specs = {name: plan(made, WORLD, directory / name) for name, made in variants(pretrained) if name in asked}
    train_together(list(specs.values()), WORLD, directory / "start")
    return specs


@pytest.mark.parametrize(
    "name", [*SHORT, *(pytest.param(name, marks=pytest.mark.thorough) for name in NAMES if name not in SHORT)]
)
def test_the_same_training(trained: dict[str, RunSpec], name: str) -> None:
    spec = trained[name]
    right = reference(spec, micro=16)
    assert len(right.loss) == STEPS
    assert furthest(column(spec, "loss"), right.loss) < 1e-6  # as in test_equivalence.py
    assert furthest(column(spec, "grad_norm"), right.grad_norm) < 3e-6


@pytest.mark.parametrize("family", PRETRAINED)
def test_the_reference_starts_from_the_saved_weights(pretrained: Path, family: str) -> None:
    made = small({"kind": "patch_lm", "patch_size": 4, "pretrained": str(pretrained / family)}, "ddp")
    model = build_model(plan(made, 1, Path("unused")), WholePlacement(CPU, torch.float32), torch.float32)
    saved = PRETRAINED[family][1].from_pretrained(pretrained / family).base_model.state_dict()
    for name, parameter in model.backbone.named_parameters():
        assert torch.equal(parameter, saved[name]), name
