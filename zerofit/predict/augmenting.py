"""Operations that augmentation adds to a micro-batch: the host launches them as it does the model's."""

from __future__ import annotations

import torch

from zerofit.data.augment import Augmenter
from zerofit.measure.operations import Count
from zerofit.plan.spec import RunSpec
from zerofit.predict.batches import of_images

SIZE = 16
"""Pixels of the images that are augmented to count them: there are as many for larger ones."""


def augmenting(spec: RunSpec) -> int:
    """Of a training micro-batch; none but of images. The GPU's time for them, less than a block's, is left out."""
    if spec.recipe.task not in ("classify", "probe"):
        return 0
    small = spec.model_copy(update={"data": spec.images.model_copy(update={"image_size": SIZE})})
    batch = of_images(small, spec.batches.micro, training=True)
    drawn = torch.arange(spec.batches.micro)
    augment = Augmenter.of(small)
    with Count() as count:
        augment({**batch, "epoch": torch.zeros_like(drawn), "index": drawn, "partner_index": drawn})
    return count.operations
