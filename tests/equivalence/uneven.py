"""A ViT with what splits worst: a parameter under two names, and one of one element."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

from zerofit.models import build
from zerofit.models.vit import VitClassifier

TIED = "backbone.layers.1.layernorm_after.weight"
"""The second name."""


class UnevenVit(VitClassifier):
    """Block 1's norms share their weight; the features are scaled by one number."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        block = self.backbone.layers[1]
        block.layernorm_after.weight = block.layernorm_before.weight
        self.gain = nn.Parameter(torch.zeros(1))

    def features(self, pixels: Tensor) -> Tensor:
        return super().features(pixels) * (1 + self.gain)


@contextmanager
def uneven_models() -> Iterator[None]:
    """Meanwhile, `kind: vit` is that model."""
    with patch.dict(build.KINDS, vit=(build.KINDS["vit"][0], UnevenVit)):
        yield
