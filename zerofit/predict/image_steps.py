"""Steps of tasks on images."""

from __future__ import annotations

import torch
from torch import Tensor

from zerofit.predict.batches import Batch, of_images
from zerofit.predict.steps import Forward, Steps
from zerofit.train.losses import classification_loss


class ImageSteps(Steps):
    """classify, and a probe that runs its backbone on every batch."""

    def batch(self, rows: int, *, training: bool) -> Batch:
        return of_images(self.spec, rows, training=training)

    def loss(self, forward: Forward, batch: Batch) -> Tensor:
        """Pixels are there during the forward pass alone; what augmentation makes on its way to them is not counted."""
        pixels = torch.empty(batch["images"].shape, dtype=torch.float32)
        return classification_loss(forward(pixels), self._targets(batch["labels"]))

    def evaluate(self, forward: Forward, batch: Batch) -> None:
        forward(torch.empty(batch["images"].shape, dtype=torch.float32))

    def _targets(self, labels: Tensor) -> Tensor:
        augment, smoothing = self.spec.recipe.images.augment, self.spec.recipe.train.label_smoothing
        if not (augment.mixup or augment.cutmix or smoothing):
            return labels
        return torch.empty(len(labels), len(self.spec.images.classes))
