"""How many tokens an image and a cloud become, told without a model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from zerofit.config.errors import UserError
from zerofit.config.model import CadMllm, Points, Vision
from zerofit.plan.slots import image_size, image_tokens, point_tokens


def of(**fields: Any) -> CadMllm:
    return CadMllm.model_validate({"kind": "cad_mllm", "shape": "qwen3-tiny", "tokenizer": "bytes", **fields})


def test_what_is_not_there_takes_no_places() -> None:
    assert (point_tokens(of()), image_tokens(of())) == (0, 0)
    assert point_tokens(of(points={})) == 256


@pytest.mark.parametrize(
    ("vision", "pixels", "tokens"),
    [
        ({}, 224, 256),  # dinov2-base, patches of 14
        ({"pool": 2}, 224, 64),
        ({"image_size": 112}, 112, 64),
        ({"shape": "vit-base"}, 224, 196),
        ({"shape": {"model_type": "vit", "patch_size": 4, "image_size": 8}}, 8, 4),
    ],
)
def test_an_image_becomes_its_patches(vision: dict[str, Any], pixels: int, tokens: int) -> None:
    assert image_size(Vision(**vision)) == pixels
    assert image_tokens(of(vision=vision)) == tokens


def test_published_configs_are_read(tmp_path: Path) -> None:
    def published(fields: dict[str, Any], **vision: Any) -> tuple[int, int]:
        (tmp_path / "config.json").write_text(json.dumps(fields))
        vision = {"pretrained": str(tmp_path), **vision}
        return image_size(Vision(**vision)), image_tokens(of(vision=vision))

    assert published({"model_type": "dinov2", "image_size": 518, "patch_size": 14}) == (224, 256)
    assert published({"model_type": "dinov2", "image_size": 518, "patch_size": 14}, image_size=518) == (518, 1369)
    assert published({"model_type": "vit", "image_size": 384, "patch_size": 16}) == (384, 576)
    inside = {"model_type": "siglip_vision_model", "image_size": 256, "patch_size": 16}
    assert published({"model_type": "siglip", "vision_config": inside}) == (256, 256)
    with pytest.raises(UserError, match="it has no model_type"):
        published({"image_size": 224})


@pytest.mark.parametrize(
    ("vision", "remedy"),
    [
        ({"image_size": 220}, "use image_size 224"),
        ({"pool": 3}, "or another pool"),
        ({"shape": "dinov2-bse"}, "did you mean dinov2-base?"),
        ({"shape": {"model_type": "resnet"}}, "makes no tokens of an image"),
    ],
)
def test_an_encoder_that_makes_no_tokens_is_refused(vision: dict[str, Any], remedy: str) -> None:
    with pytest.raises(UserError, match=r"^model\.vision") as caught:
        image_tokens(of(vision=vision))
    assert remedy in str(caught.value)


def test_sections_that_cannot_be_meant_are_refused() -> None:
    with pytest.raises(ValidationError, match="takes one of shape and pretrained"):
        Vision(shape="dinov2-base", pretrained="x")
    with pytest.raises(ValidationError, match="width 10 is no multiple of heads 4"):
        Points(width=10, heads=4)
