"""Activation checkpointing: the same numbers, fewer kept activations."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny_models import GPT2, QWEN3, VIT, build, pixels

from zerofit.models.classifier import ImageClassifier

MODELS: list[dict[str, Any]] = [
    {"kind": "vit", "shape": VIT},
    {"kind": "patch_lm", "shape": QWEN3},
    {"kind": "patch_lm", "shape": GPT2},
]


def forwards_and_kept(model: ImageClassifier) -> tuple[list[int], int]:
    """How often the attention of each block ran in one step, and how many elements autograd kept for backward."""
    runs = [0] * len(model.blocks)
    kept = 0

    def count(index: int) -> Any:
        def hook(*_: object) -> None:
            runs[index] += 1

        return hook

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        nonlocal kept
        kept += tensor.numel()
        return tensor

    for index, block in enumerate(model.blocks):
        next(block.children()).register_forward_hook(count(index))
    torch.manual_seed(0)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = model(pixels()).square().sum()
    loss.backward()
    return runs, kept


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model["shape"]["model_type"])
def test_recomputing_changes_no_gradient_and_runs_the_chosen_blocks_twice(model: dict[str, Any]) -> None:
    built = {
        mode: build({**model, "dropout": 0.1}, strategy={"activation_checkpointing": mode}).train()
        for mode in ("none", "selective", "full")
    }
    figures = {mode: forwards_and_kept(classifier) for mode, classifier in built.items()}
    assert {mode: runs for mode, (runs, _) in figures.items()} == {"none": [1, 1], "selective": [2, 1], "full": [2, 2]}
    assert figures["none"][1] > figures["selective"][1] > figures["full"][1]
    for name, parameter in built["none"].named_parameters():
        for mode in ("selective", "full"):
            gradient = built[mode].get_parameter(name).grad
            assert gradient is not None
            assert torch.equal(gradient, parameter.grad), f"{mode}: {name}"


def test_frozen_blocks_are_recomputed_where_gradients_pass_through_them() -> None:
    rules = [{"pattern": r"layers\.", "freeze": True}, {"pattern": "."}]
    model = build({**MODELS[1], "trainable": rules}, strategy={"activation_checkpointing": "full"}).train()
    forwards_and_kept(model)
    gradients = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert gradients == {
        "patch_embedding.weight",
        "patch_embedding.bias",
        "backbone.norm.weight",
        "head.weight",
        "head.bias",
    }
