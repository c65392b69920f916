"""What images and point clouds are to a `cad_mllm`: how many tokens they become, and how large; without one."""

from __future__ import annotations

import copy
import json
from typing import Any

from zerofit.config.errors import UserError, did_you_mean
from zerofit.config.limited import read_limited
from zerofit.config.located import located
from zerofit.config.model import CadMllm, Vision
from zerofit.plan.shapes import ENCODERS, Shape

DEFAULT_SHAPE = "dinov2-base"
DEFAULT_SIZE = 224
"""Pixels per side: what DINOv2 is evaluated on, though published configs say 518, which it was trained up to."""
FAMILY, FIELD = "dinov2", "model.vision"
TEXT, POINTS, IMAGE = range(3)
"""Whose a place of a row is: what `slots` of a batch says."""
CHANNELS = 6
"""Of a point: x, y, z and the unit normal (zeros where a file has no normals)."""


def point_tokens(model: CadMllm) -> int:
    """Tokens that a point cloud becomes; 0 without a point encoder."""
    return 0 if model.points is None else model.points.latents


def image_tokens(model: CadMllm) -> int:
    """Tokens that an image becomes; 0 without an image encoder. Raises UserError where patches do not tile it."""
    if model.vision is None:
        return 0
    fields = vision_fields(model.vision)
    pixels, patch = size_of(model.vision, fields), fields.get("patch_size")
    if not isinstance(patch, int):
        raise UserError(
            f"{FIELD}: a {fields.get('model_type')} without patch_size (pixels per side, a whole number) makes no "
            "tokens of an image; use an encoder of patches such as dinov2, vit or siglip_vision_model"
        )
    side = patch * model.vision.pool
    if pixels % side:
        raise UserError(
            f"{FIELD}: images of {pixels} pixels a side are not tiled by {model.vision.pool} patches of {patch}: use "
            f"image_size {max(1, round(pixels / side)) * side}, or another pool"
        )
    return (pixels // side) ** 2


def image_size(vision: Vision) -> int:
    """Pixels per side of the images that an encoder sees. Raises UserError."""
    return size_of(vision, vision_fields(vision))


def size_of(vision: Vision, fields: Shape) -> int:
    """The same, of an encoder of the config `fields`."""
    own = fields.get("image_size")
    if vision.image_size is not None:
        return vision.image_size
    published = vision.pretrained is not None and fields.get("model_type") == FAMILY
    return own if isinstance(own, int) and not published else DEFAULT_SIZE


def vision_fields(vision: Vision) -> Shape:
    """The config fields of the image encoder, always with model_type: the shape's, or those of its config.json.

    Of a model of images and text (CLIP, SigLIP) those of its image encoder. Raises UserError.
    """
    if vision.pretrained is not None:
        return _published(vision.pretrained)
    shape = vision.shape if vision.shape is not None else DEFAULT_SHAPE
    if isinstance(shape, str):
        if shape not in ENCODERS:
            raise UserError(
                f"{FIELD}.shape: {shape!r} is no image encoder{did_you_mean(shape, ENCODERS)} ({', '.join(ENCODERS)})"
            )
        return copy.deepcopy(ENCODERS[shape])
    fields = copy.deepcopy(shape)
    fields.setdefault("model_type", FAMILY)
    return fields


def _published(name: str) -> Shape:
    directory = located(name, f"{FIELD}.pretrained", ["config.json"])
    assert directory is not None, "online it is there, or an error"
    file = directory / "config.json"
    try:
        fields: Any = json.loads(read_limited(file))
        fields = fields.get("vision_config", fields)
        if not isinstance(fields.get("model_type"), str):
            raise KeyError
    except (OSError, ValueError, KeyError, AttributeError, RecursionError):
        raise UserError(f"{FIELD}.pretrained: {file} is no config.json of transformers: it has no model_type") from None
    return dict(fields)
