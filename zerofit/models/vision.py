"""An image encoder of transformers, and the patches that it gives: DINOv2, ViT, the encoders of CLIP and SigLIP, ..."""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import MODEL_MAPPING, PreTrainedConfig, PreTrainedModel
from transformers.initialization import no_init_weights

from zerofit.config.errors import UserError
from zerofit.models.config import ATTENTION, config_from_fields, config_of_fields, set_dropout
from zerofit.plan.slots import FIELD, size_of, vision_fields
from zerofit.plan.spec import RunSpec


def vision_config(spec: RunSpec) -> PreTrainedConfig:
    """The config of the run's image encoder, at the size of its images. Raises UserError."""
    model = spec.recipe.cad_model
    section = model.vision
    assert section is not None, "asked for where there is one alone"
    fields = vision_fields(section)
    if section.pretrained is None:
        config = config_from_fields({**fields, "image_size": size_of(section, fields)}, f"{FIELD}.shape")
    else:
        config = config_of_fields(fields, f"{FIELD}.pretrained: {section.pretrained}/config.json")
    set_dropout(config, model.dropout)
    config._attn_implementation = ATTENTION[model.attention]
    return config


def make_encoder(config: PreTrainedConfig) -> PreTrainedModel:
    """The encoder, without values. Raises UserError for an attention kernel that it does not have."""
    if type(config) not in MODEL_MAPPING:
        raise UserError(f"{FIELD}: transformers has no plain model of a {config.model_type}")
    kind = cast("type[PreTrainedModel]", MODEL_MAPPING[type(config)])
    try:
        return kind(config)
    except (ValueError, ImportError) as error:
        raise UserError(f"model.attention: {' '.join(str(error).split())[:300]}") from None


def patch_features(encoder: PreTrainedModel, pixels: Tensor, tokens: int, pool: int) -> Tensor:
    """pixels [I, 3, S, S] -> [I, tokens, width]: its last patches in raster order, means of pool x pool neighbours.

    What an encoder puts before the patches (class token, registers) is left out.
    """
    hidden: Tensor = encoder(pixel_values=pixels).last_hidden_state
    patches = hidden[:, hidden.shape[1] - tokens * pool**2 :]
    if pool == 1:
        return patches
    side = round(tokens**0.5) * pool
    grid = patches.transpose(1, 2).unflatten(2, (side, side))
    return F.avg_pool2d(grid, pool).flatten(2).transpose(1, 2)


def idle_parameters(config: PreTrainedConfig, size: int, tokens: int, pool: int) -> frozenset[str]:
    """Names of the parameters on which `patch_features` of images [I, 3, size, size] do not depend.

    These are poolers, norms before them and mask tokens. They are found by a forward and backward pass without values.
    Raises UserError for an encoder that does not give patches, or not of images of this size.
    """
    pixels = (1, 3, size, size)
    with FakeTensorMode(), no_init_weights(), torch.enable_grad():
        encoder = make_encoder(config)
        named = dict(encoder.named_parameters())
        try:
            features = patch_features(encoder, torch.zeros(pixels), tokens, pool)
            if features.shape[:2] != (1, tokens):
                raise ValueError(f"it gives {tuple(features.shape)}, not {tokens} tokens of an image")
        except (ValueError, RuntimeError, TypeError, AttributeError) as error:
            raise UserError(
                f"{FIELD}: {type(encoder).__name__} makes no patches of images of {size} pixels: "
                f"{' '.join(str(error).split())[:200]}"
            ) from None
        gradients = torch.autograd.grad(features.sum(), list(named.values()), allow_unused=True)
    return frozenset(name for name, gradient in zip(named, gradients, strict=True) if gradient is None)
