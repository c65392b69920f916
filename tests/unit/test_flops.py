"""Counted FLOPs against torch's own counter, which watches the matrix products as they run."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from tiny_models import GPT2, QWEN3, VIT, build, pixels, tiny_spec
from torch.utils.flop_counter import FlopCounterMode
from transformers import ViTConfig

from zerofit.measure.flops import attention_flops, flops_per_sample, training_flops_per_sample
from zerofit.models.vit import VitClassifier


def watched(model: torch.nn.Module) -> int:
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(pixels(batch=1))
    return int(counter.get_total_flops())


@pytest.mark.parametrize(
    "model",
    [
        {"kind": "vit", "shape": VIT},
        {"kind": "patch_lm", "shape": QWEN3, "attention_mask": "bidirectional"},
        {"kind": "patch_lm", "shape": GPT2, "attention_mask": "bidirectional", "pool": "cls"},
    ],
    ids=lambda model: model["shape"]["model_type"],
)
def test_flops_agree_with_torchs_counter(model: dict[str, Any]) -> None:
    classifier = build({**model, "attention": "eager"}).eval()
    # torch may count rotary angles, an outer product, as a matrix product
    assert flops_per_sample(classifier) == pytest.approx(watched(classifier), rel=1e-3)


@pytest.mark.parametrize(
    "model", [{"kind": "vit", "shape": VIT}, {"kind": "patch_lm", "shape": QWEN3, "attention_mask": "bidirectional"}]
)
@pytest.mark.parametrize("trained", [".", "^head", "embed|^head", r"layers\.1\.|^head"])
def test_training_flops_depend_on_what_is_trained(model: dict[str, Any], trained: str) -> None:
    """Gradients of inputs are computed from the first trained layer on, gradients of weights where they are trained."""
    classifier = build({**model, "attention": "eager"})
    for name, parameter in classifier.named_parameters():
        parameter.requires_grad_(re.search(trained, name) is not None)
    images = pixels(batch=1).requires_grad_(trained in (".", "embed|^head"))  # the first layer's input, too
    with FlopCounterMode(display=False) as counter:
        classifier(images).sum().backward()
    assert training_flops_per_sample(classifier) == pytest.approx(counter.get_total_flops(), rel=0.02)


def test_a_causal_mask_halves_attention_alone() -> None:
    both = build({"kind": "patch_lm", "shape": QWEN3, "attention_mask": "bidirectional"})
    causal = build({"kind": "patch_lm", "shape": QWEN3})
    attention = 2 * 4 * 16**2 * 4 * 8  # blocks x 4 x tokens^2 x heads x head_dim
    assert attention_flops(both.config, 16, causal=False) == attention
    assert flops_per_sample(both) - flops_per_sample(causal) == attention / 2


def test_weights_are_not_looked_at() -> None:
    model = build({"kind": "patch_lm", "shape": GPT2})
    whole = flops_per_sample(model)
    for parameter in model.parameters():
        parameter.data = torch.empty(0)  # as ZeRO-3 leaves it
    assert flops_per_sample(model) == whole


def test_vit_base_needs_the_published_17_6_gigaflops_a_multiply_add_being_one() -> None:
    spec = tiny_spec({"kind": "vit", "shape": VIT}, classes=1000)
    with torch.device("meta"):
        model = VitClassifier(ViTConfig(), spec, torch.float32)  # the default is ViT-B/16 at 224 pixels
    assert flops_per_sample(model) / 2 == pytest.approx(17.6e9, rel=0.01)
