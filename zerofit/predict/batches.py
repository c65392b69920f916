"""Batches of each task as its collator gives them, as large as they come in the data: `TextFacts` and the like say how.

Values are made up; which places count is as it would be.
"""

from __future__ import annotations

import torch
from torch import Tensor

from zerofit.plan.spec import RunSpec

Batch = dict[str, Tensor]


def of_images(spec: RunSpec, rows: int, *, training: bool) -> Batch:
    """images uint8 [rows, 3, S, S] and labels int64 [rows]; in training the partners that they are mixed with, too."""
    facts = spec.images
    augment = spec.recipe.images.augment
    mixing = training and (augment.mixup > 0 or augment.cutmix > 0)
    shape = (rows, 3, facts.image_size, facts.image_size)
    names = ("", "partner_") if mixing else ("",)
    batch: Batch = {}
    for name in names:
        batch[f"{name}images"] = torch.empty(shape, dtype=torch.uint8)
        batch[f"{name}labels"] = torch.empty(rows, dtype=torch.int64)
    return batch
