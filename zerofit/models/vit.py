"""Transformers' ViT with a linear head on the normalised class token."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedConfig, ViTConfig, ViTModel

from zerofit.config.errors import UserError
from zerofit.models.classifier import ImageClassifier
from zerofit.models.config import patches_per_image
from zerofit.plan.spec import RunSpec

POSITIONS = "backbone.embeddings.position_embeddings"


class VitClassifier(ImageClassifier):
    """ViT (Dosovitskiy et al. 2021): a class token and the patches, each with a learnt position; no pooler."""

    def __init__(self, config: PreTrainedConfig, spec: RunSpec, compute_dtype: torch.dtype) -> None:
        assert isinstance(config, ViTConfig)
        assert isinstance(config.image_size, int)
        assert isinstance(config.patch_size, int)
        patches = patches_per_image(config.image_size, config.patch_size)
        super().__init__(
            ViTModel(config, add_pooling_layer=False),
            spec,
            width=config.hidden_size,
            patches=patches,
            tokens=patches + 1,
            causal=False,
            compute_dtype=compute_dtype,
        )

    def features(self, pixels: Tensor) -> Tensor:
        """pixels [B, 3, S, S] -> the normalised class token [B, hidden]."""
        hidden: Tensor = self.backbone(pixel_values=pixels).last_hidden_state
        return hidden[:, 0]

    def fit_pretrained(self, name: str, value: Tensor, shape: torch.Size) -> Tensor:
        """As the base class; positions of another image size are resampled."""
        if name == POSITIONS and value.shape != shape:
            value = resize_positions(value, shape[1] - 1)
        return super().fit_pretrained(name, value, shape)


def vit_config(config: PreTrainedConfig, spec: RunSpec) -> PreTrainedConfig:
    """`config` at the run's image and patch size. Raises UserError for what is no ViT, or another patch size."""
    if config.model_type != "vit":
        raise UserError(
            f"model.pretrained: {spec.recipe.model.pretrained} holds a {config.model_type}, not a vit; "
            "for a decoder language model use model.kind patch_lm"
        )
    if config.num_channels != 3 or not isinstance(config.patch_size, int):
        raise UserError(
            f"model: a ViT here sees 3 channels in square patches, not {config.num_channels} in patches of "
            f"{config.patch_size}"
        )
    wanted = spec.recipe.image_model.patch_size
    if wanted is not None:
        if spec.recipe.model.pretrained is not None and wanted != config.patch_size:
            raise UserError(
                f"model.patch_size: {wanted}, but the pretrained model's patches have {config.patch_size} pixels a "
                "side, which cannot change; leave it out"
            )
        config.patch_size = wanted
    config.image_size = spec.recipe.image_model.image_size or spec.images.image_size
    return config


def resize_positions(positions: Tensor, patches: int) -> Tensor:
    """Learnt positions [1, 1 + n, D] of a square grid, resampled to `patches`: [1, 1 + patches, D].

    Bicubic without antialiasing, as ViT and DeiT do; the class token's position stays.
    """
    old, new = round((positions.shape[1] - 1) ** 0.5), round(patches**0.5)
    grid = positions[:, 1:].float().reshape(1, old, old, -1).permute(0, 3, 1, 2)
    grid = F.interpolate(grid, size=(new, new), mode="bicubic", align_corners=False)
    return torch.cat([positions[:, :1].float(), grid.flatten(2).transpose(1, 2)], dim=1)
