"""Augmentation of a batch on the device, and the targets that go with it.

A sample's random numbers are a function of (seed, epoch, sample): the same on any rank, in any micro-batch, on any
device.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from zerofit.config.data import Augment
from zerofit.data.draws import Purpose, uniforms
from zerofit.data.geometry import CROP_DRAWS, crop_boxes, flip, resized_crop
from zerofit.data.images import IGNORED
from zerofit.data.mixing import MIX_DRAWS, weights
from zerofit.plan.spec import RunSpec

Colour = tuple[float, float, float]


class Normalise:
    """uint8 [B, 3, S, S] -> float32 of that shape: (value / 255 - mean) / std, per channel."""

    def __init__(self, mean: Colour, std: Colour) -> None:
        self.mean, self.std = torch.tensor(mean)[:, None, None], torch.tensor(std)[:, None, None]

    def __call__(self, images: Tensor) -> Tensor:
        return self.scaled(images.float() / 255)

    def scaled(self, images: Tensor) -> Tensor:
        """The same for float images in 0..1."""
        if self.mean.device != images.device:
            self.mean, self.std = self.mean.to(images.device), self.std.to(images.device)
        return (images - self.mean) / self.std


class Augmenter:
    """Training batch -> (pixels float32 [B, 3, S, S] normalised, targets).

    Targets are the labels, int64 [B] (-100: left out); with mixing or label smoothing, float32 [B, classes] (a row of
    zeros: left out). The batch has the keys of `train_loader`, with partners where mixing is on. Where index, epoch and
    partner_index stay on the CPU, nothing waits for the device.
    """

    def __init__(
        self,
        augment: Augment,
        image_size: int,
        classes: int,
        seed: int,
        mean: Colour,
        std: Colour,
        label_smoothing: float = 0.0,
    ) -> None:
        self.recipe, self.size, self.classes, self.seed, self.smoothing = (
            augment,
            image_size,
            classes,
            seed,
            label_smoothing,
        )
        self.fill = mean
        self.normalise = Normalise(mean, std)
        self.mixing = augment.mixup > 0 or augment.cutmix > 0

    @classmethod
    def of(cls, spec: RunSpec) -> Augmenter:
        """That of a run's training batches."""
        data, train = spec.recipe.images, spec.recipe.train
        return cls(
            data.augment,
            image_size=spec.images.image_size,
            classes=len(spec.images.classes),
            seed=train.seed,
            mean=data.mean,
            std=data.std,
            label_smoothing=train.label_smoothing,
        )

    @staticmethod
    def plain(mean: Colour, std: Colour) -> Normalise:
        """What evaluation does instead."""
        return Normalise(mean, std)

    def __call__(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        labels = batch["labels"]
        epoch, index = batch["epoch"].cpu().numpy(), batch["index"].cpu().numpy()
        if not self.mixing:
            pixels = self.normalise.scaled(self._augmented(batch["images"], epoch, index))
            return pixels, self._spread(self._one_hot(labels), labels) if self.smoothing else labels
        everyone = torch.cat([batch["images"], batch["partner_images"]])
        who = np.concatenate([index, batch["partner_index"].cpu().numpy()])
        pixels = self.normalise.scaled(self._augmented(everyone, np.concatenate([epoch, epoch]), who))
        own, partner = pixels.chunk(2)
        draws = uniforms(self.seed, epoch, index, Purpose.MIX, MIX_DRAWS)
        share, label_share = weights(draws, self.recipe.mixup, self.recipe.cutmix, self.size, pixels.device)
        alone = batch["partner_labels"] == IGNORED  # a partner that could not be read: nothing to mix with
        share = share.masked_fill(alone[:, None, None, None], 1.0)
        label_share = label_share.masked_fill(alone, 1.0)[:, None]
        soft = label_share * self._one_hot(labels) + (1 - label_share) * self._one_hot(batch["partner_labels"])
        return share * own + (1 - share) * partner, self._spread(soft, labels)

    def _augmented(self, images: Tensor, epoch: NDArray[np.int64], index: NDArray[np.int64]) -> Tensor:
        """uint8 [B, 3, S, S] -> augmented, float32 in 0..1."""
        recipe = self.recipe
        pixels = images.float() / 255
        if recipe.crop_scale is not None:
            draws = uniforms(self.seed, epoch, index, Purpose.CROP, CROP_DRAWS)
            pixels = resized_crop(pixels, crop_boxes(draws, self.size, recipe.crop_scale, recipe.crop_ratio))
        if recipe.flip > 0:
            pixels = flip(pixels, uniforms(self.seed, epoch, index, Purpose.FLIP, 1)[:, 0] < recipe.flip)
        if recipe.randaugment is not None:
            from zerofit.data.randaugment import rand_augment  # kornia: a second of import

            operations, magnitude = recipe.randaugment
            draws = uniforms(self.seed, epoch, index, Purpose.OPERATIONS, 2 * operations)
            pixels = rand_augment(pixels, draws, magnitude, self.fill)
        return pixels

    def _one_hot(self, labels: Tensor) -> Tensor:
        return F.one_hot(labels.clamp(min=0), self.classes).float()

    def _spread(self, soft: Tensor, labels: Tensor) -> Tensor:
        """Label smoothing (Szegedy et al. 2015), and zeros for what is left out."""
        smooth = soft * (1 - self.smoothing) + self.smoothing / self.classes
        return smooth * (labels != IGNORED)[:, None]
