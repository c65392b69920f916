"""Losses of our own."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from zerofit.data.images import IGNORED


def classification_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy over the samples that count.

    logits [B, C] float32; targets int64 [B] (-100: does not count) or float32 [B, C] (a row of zeros: does not count).
    """
    if targets.is_floating_point():
        total, valid = F.cross_entropy(logits, targets, reduction="sum"), targets.sum(dim=1) > 0
    else:
        total = F.cross_entropy(logits, targets, reduction="sum", ignore_index=IGNORED)
        valid = targets != IGNORED
    return total / valid.sum().clamp(min=1)
