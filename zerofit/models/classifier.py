"""What every image classifier is: a transformers backbone, its blocks, and a linear head."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from zerofit.models.trained import TrainedModel, name_of_blocks
from zerofit.plan.spec import RunSpec

BACKBONE = "backbone."
HEAD_NORM = "head_norm."
"""In the names of the statistics of a probe's BatchNorm."""


class ImageClassifier(TrainedModel, ABC):
    """pixels [B, 3, S, S] -> logits [B, classes] in float32.

    A probe may have a BatchNorm without parameters before the head, as in MAE's `main_linprobe.py`.

    Pixels are cast to `compute_dtype`.
    """

    accepts_loss_kwargs = False  # else Trainer leaves the division by accumulation steps to us
    prefix = BACKBONE

    def __init__(
        self,
        backbone: PreTrainedModel,
        spec: RunSpec,
        *,
        width: int,
        patches: int,
        tokens: int,
        causal: bool,
        compute_dtype: torch.dtype,
    ) -> None:
        super().__init__()
        self.config = backbone.config
        self.patches, self.tokens, self.span, self.causal = patches, tokens, tokens, causal
        self.compute_dtype = compute_dtype
        self.backbone = backbone
        probe = spec.recipe.probe
        self.head_norm = nn.BatchNorm1d(width, eps=1e-6, affine=False) if probe and probe.batch_norm else None
        self.head = nn.Linear(width, len(spec.images.classes))
        self.head_std = None if probe is None else probe.head_std
        self.blocks_name = BACKBONE + name_of_blocks(backbone)

    @property
    def family(self) -> PreTrainedModel:
        """The backbone."""
        return self.backbone

    @property
    def once(self) -> nn.Linear:
        """The head."""
        return self.head

    def draw(self, name: str, value: Tensor) -> None:
        """Xavier on flattened patches (MAE, ViT), a truncated normal for the head and the class token, zero biases."""
        if name.endswith(".bias"):
            value.zero_()
        elif name == "patch_embedding.weight":
            nn.init.xavier_uniform_(value.flatten(1))
        elif name == "head.weight" and self.head_std is not None:
            nn.init.normal_(value, std=self.head_std)
        else:
            nn.init.trunc_normal_(value, std=0.02)

    def forward(self, pixels: Tensor) -> Tensor:
        """pixels [B, 3, S, S] -> logits [B, classes], float32."""
        vectors = self.features(pixels.to(self.compute_dtype))
        if self.head_norm is not None:
            vectors = self.head_norm(vectors.float()).to(vectors.dtype)  # statistics are float32 under every engine
        logits: Tensor = self.head(vectors)
        return logits.float()

    @abstractmethod
    def features(self, pixels: Tensor) -> Tensor:
        """pixels [B, 3, S, S] -> one vector an image [B, width], after the backbone's final norm."""
