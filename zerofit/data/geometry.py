"""Random resized crop and flip of a batch."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from zerofit.data.placing import on_device

ATTEMPTS = 10
CROP_DRAWS = 2 * ATTEMPTS + 2


def crop_boxes(
    draws: NDArray[np.float64], size: int, scale: tuple[float, float], ratio: tuple[float, float]
) -> NDArray[np.int64]:
    """[B, CROP_DRAWS] in [0, 1) -> boxes [B, 4]: left, top, width, height in whole pixels of a size x size image.

    As in Inception (Szegedy et al. 2015) and torchvision: area uniform in `scale`, width / height log-uniform in
    `ratio`, the first of ten attempts that fits; else the largest middle box whose ratio is allowed.
    """
    area = size * size * (scale[0] + (scale[1] - scale[0]) * draws[:, :ATTEMPTS])
    low, high = np.log(ratio)
    aspect = np.exp(low + (high - low) * draws[:, ATTEMPTS : 2 * ATTEMPTS])
    width = np.rint(np.sqrt(area * aspect)).astype(np.int64)
    height = np.rint(np.sqrt(area / aspect)).astype(np.int64)
    fits = (width > 0) & (width <= size) & (height > 0) & (height <= size)
    rows, first = np.arange(len(draws)), fits.argmax(axis=1)
    nearest = min(max(1.0, ratio[0]), ratio[1])  # the whole image's ratio is 1
    fallback = max(1, round(size * min(nearest, 1.0))), max(1, round(size / max(nearest, 1.0)))
    found = fits.any(axis=1)
    width = np.where(found, width[rows, first], fallback[0])
    height = np.where(found, height[rows, first], fallback[1])
    left = np.where(found, draws[:, -2] * (size - width + 1), (size - width) // 2).astype(np.int64)
    top = np.where(found, draws[:, -1] * (size - height + 1), (size - height) // 2).astype(np.int64)
    return np.stack([left, top, width, height], axis=1)


def resized_crop(images: Tensor, boxes: NDArray[np.int64]) -> Tensor:
    """Float [B, C, S, S] and boxes [B, 4] -> each box enlarged to S x S (bilinear)."""
    from kornia.geometry.transform import warp_affine

    size = images.shape[-1]
    left, top, width, height = boxes.astype(np.float64).T
    to_whole = np.zeros((len(boxes), 2, 3))
    for axis, (start, length) in enumerate(((left, width), (top, height))):
        zoom = size / length
        to_whole[:, axis, axis] = zoom
        to_whole[:, axis, 2] = (0.5 - start) * zoom - 0.5  # a pixel's coordinate is its centre's, not its corner's
    matrices = on_device(to_whole, images.device).to(images.dtype)
    return warp_affine(images, matrices, (size, size), padding_mode="border")


def flip(images: Tensor, which: NDArray[np.bool_]) -> Tensor:
    """[B, C, S, S] with the images where `which` [B] is true mirrored left to right."""
    return torch.where(on_device(which, images.device)[:, None, None, None], images.flip(-1), images)
