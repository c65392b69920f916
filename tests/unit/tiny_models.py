"""Plans of tiny models, for the tests of the models room."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from zerofit.config.schema import Recipe
from zerofit.models.build import build_model
from zerofit.models.classifier import ImageClassifier
from zerofit.models.placement import WholePlacement
from zerofit.plan.spec import Batches, Hardware, ImageFacts, RunSpec

CPU = torch.device("cpu")
LLAMA = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 40,
    "max_position_embeddings": 64,
    "pad_token_id": None,
    "bos_token_id": None,
    "eos_token_id": None,
}
QWEN3 = {**LLAMA, "model_type": "qwen3", "head_dim": 8}
GPT2 = {"model_type": "gpt2", "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, "vocab_size": 40}
GPT2 |= {"bos_token_id": None, "eos_token_id": None}
VIT = {
    "model_type": "vit",
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "patch_size": 2,
}


def tiny_spec(
    model: dict[str, Any],
    *,
    classes: int = 5,
    image_size: int = 8,
    seed: int = 0,
    strategy: dict[str, Any] | None = None,
    **optimizer: Any,
) -> RunSpec:
    """A plan whose recipe has this `model` section; a shape must be a mapping with model_type."""
    recipe = Recipe.model_validate(
        {
            "model": {**({} if model["kind"] == "vit" else {"patch_size": 2}), **model},
            "data": {"source": "digits"},
            "train": {"epochs": 1, "micro_batch": 2, "global_batch": 2, "seed": seed},
            "optimizer": {"lr": 1e-3, **optimizer},
            "strategy": {"name": "single", **(strategy or {})},
        }
    )
    shape = recipe.model.shape
    assert shape is None or isinstance(shape, dict)
    return RunSpec(
        recipe=recipe,
        run_dir=Path("runs/test"),
        data=ImageFacts(
            classes=tuple(f"class {label}" for label in range(classes)),
            train=8,
            validation=4,
            test=0,
            validation_from="test",
            image_size=image_size,
        ),
        hardware=Hardware(device="cpu", count=1, name="CPU", memory_gib=8.0, capability=None, cpus=2),
        batches=Batches(
            ranks=1,
            micro=2,
            accumulation=1,
            global_batch=2,
            evaluate_micro=2,
            steps_per_epoch=4,
            total_steps=4,
            warmup_steps=0,
            checkpoint_steps=None,
            evaluate_steps=None,
        ),
        lr=1e-3,
        precision="fp32",
        shape=shape,
        deepspeed=None,
        versions={},
        git=None,
    )


def build(model: dict[str, Any], **plan: Any) -> ImageClassifier:
    """The model, whole and in float32 on the CPU."""
    return build_model(tiny_spec(model, **plan), WholePlacement(CPU, torch.float32), torch.float32)


def pixels(batch: int = 2, size: int = 8) -> torch.Tensor:
    """Random images [batch, 3, size, size]."""
    return torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(0))


def equal_weights(one: nn.Module, other: nn.Module) -> bool:
    """Whether all parameters and buffers are bitwise equal."""
    left = dict([*one.named_parameters(), *one.named_buffers()])
    right = dict([*other.named_parameters(), *other.named_buffers()])
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)
