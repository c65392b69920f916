"""Plans of tiny CAD-MLLMs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tiny_models import CPU, QWEN3, tiny_spec

from zerofit.config.schema import Recipe
from zerofit.models.build import build_model
from zerofit.models.cad_mllm import CadMllm
from zerofit.models.placement import WholePlacement
from zerofit.plan.spec import CadFacts, RunSpec

SHAPE = {**QWEN3, "tie_word_embeddings": True}
DINOV2 = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "patch_size": 4}
VISION = {"shape": DINOV2, "image_size": 8}
POINTS = {"latents": 3, "width": 12, "depth": 2, "heads": 2, "frequencies": 3}
BOTH = {"vision": VISION, "points": POINTS}
FACTS = CadFacts(
    train=8,
    validation=4,
    test=4,
    validation_from="test",
    rows=8,
    tokens=160,
    targets=80,
    longest=32,
    left_out=0,
    vocabulary=40,
    pad=0,
    stops=(3,),
    samples=Path("unused"),
    clouds=0.5,
    images=0.5,
    points=16,
    image_size=8,
)


def cad_spec(*, seed: int = 0, strategy: dict[str, Any] | None = None, **model: Any) -> RunSpec:
    """A plan whose recipe has this `model` section; the language model is a tiny Qwen3 unless it is pretrained."""
    section: dict[str, Any] = {"kind": "cad_mllm", "tokenizer": "bytes", **model}
    if "pretrained" not in section:
        section = {"shape": SHAPE, **section}
    recipe = Recipe.model_validate(
        {
            "task": "cad",
            "model": section,
            "data": {"source": "parts"},
            "train": {"epochs": 1, "micro_batch": 2, "global_batch": 2, "seed": seed},
            "optimizer": {"lr": 1e-3},
            "strategy": {"name": "single", **(strategy or {})},
        }
    )
    spec = tiny_spec({"kind": "patch_lm", "shape": QWEN3})
    return spec.model_copy(
        update={"recipe": recipe, "strategy": spec.strategy.model_copy(update=strategy or {}), "data": FACTS}
        | {"shape": section.get("shape")}
    )


def built(spec: RunSpec) -> CadMllm:
    """Its model, whole and in float32 on the CPU."""
    model = build_model(spec, WholePlacement(CPU, torch.float32), torch.float32)
    assert isinstance(model, CadMllm)
    return model


def batch() -> dict[str, torch.Tensor]:
    """Two rows: a cloud, an image and text; text and two images, the last of them at the end."""
    draw = torch.Generator().manual_seed(0)
    ids = torch.randint(4, 40, (2, 14), generator=draw)
    slots = torch.tensor([[1] * 3 + [2] * 4 + [0] * 7, [0, 0] + [2] * 8 + [0] * 4])
    labels = torch.where(torch.arange(14) >= 10, ids, -100)
    mask = torch.ones_like(ids)
    mask[0, 13:], labels[0, 13:] = 0, -100
    points = torch.rand(1, 16, 6, generator=draw) * 2 - 1
    images = torch.randn(3, 3, 8, 8, generator=draw)
    return {
        "input_ids": ids,
        "labels": labels,
        "attention_mask": mask,
        "slots": slots,
        "points": points,
        "images": images,
    }
