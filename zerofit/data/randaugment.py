"""RandAugment (Cubuk et al. 2019, arXiv:1909.13719) on batches, each sample with its own operations.

Operations and their strengths are those of torchvision's `RandAugment`, which follows the paper. They are defined on
8-bit images: every operation's result is rounded to 8 bits, so that Posterize, Solarize and Equalize mean what they
mean there. Geometry is bilinear, and what comes into view has the data's mean colour.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import kornia.color
import kornia.enhance as enhance
import numpy as np
import torch
from kornia.geometry.transform import warp_affine
from numpy.typing import NDArray
from torch import Tensor

LEVELS = 30


class Operation(NamedTuple):
    """`strength(level 0..1, image size)` is the parameter, negated for half of the samples where `signed`.

    `apply(images [b, 3, S, S] in 0..1, parameters [b], fill [3])` gives images of that shape.
    """

    strength: Callable[[float, int], float]
    signed: bool
    apply: Callable[[Tensor, Tensor, Tensor], Tensor]


def _warp(images: Tensor, linear: Tensor, shift: Tensor, fill: Tensor) -> Tensor:
    """Move the pixel at p to linear [b, 2, 2] p + shift [b, 2]; p counts from the corner of the image."""
    corner = linear.sum(dim=-1) * 0.5 - 0.5  # kornia counts from the centre of the first pixel
    matrices = torch.cat([linear, (shift + corner)[..., None]], dim=-1)
    size = (images.shape[-2], images.shape[-1])
    return warp_affine(images, matrices, size, padding_mode="fill", fill_value=fill)


def _matrices(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
    return torch.stack([a, b, c, d], dim=-1).view(-1, 2, 2)


def _shear_x(images: Tensor, amount: Tensor, fill: Tensor) -> Tensor:
    one, zero = torch.ones_like(amount), torch.zeros_like(amount)
    return _warp(images, _matrices(one, -amount, zero, one), torch.stack([zero, zero], dim=-1), fill)


def _shear_y(images: Tensor, amount: Tensor, fill: Tensor) -> Tensor:
    one, zero = torch.ones_like(amount), torch.zeros_like(amount)
    return _warp(images, _matrices(one, zero, -amount, one), torch.stack([zero, zero], dim=-1), fill)


def _translate_x(images: Tensor, pixels: Tensor, fill: Tensor) -> Tensor:
    one, zero = torch.ones_like(pixels), torch.zeros_like(pixels)
    return _warp(images, _matrices(one, zero, zero, one), torch.stack([-pixels, zero], dim=-1), fill)


def _translate_y(images: Tensor, pixels: Tensor, fill: Tensor) -> Tensor:
    one, zero = torch.ones_like(pixels), torch.zeros_like(pixels)
    return _warp(images, _matrices(one, zero, zero, one), torch.stack([zero, -pixels], dim=-1), fill)


def _rotate(images: Tensor, degrees: Tensor, fill: Tensor) -> Tensor:
    """Counter-clockwise about the centre."""
    cos, sin = torch.cos(torch.deg2rad(degrees)), torch.sin(torch.deg2rad(degrees))
    linear = _matrices(cos, sin, -sin, cos)
    centre = images.shape[-1] / 2
    return _warp(images, linear, centre - linear.sum(dim=-1) * centre, fill)


def _brightness(images: Tensor, amount: Tensor, fill: Tensor) -> Tensor:
    return images * (1 + amount)[:, None, None, None]


def _colour(images: Tensor, amount: Tensor, fill: Tensor) -> Tensor:
    return enhance.adjust_saturation_with_gray_subtraction(images, 1 + amount)


def _contrast(images: Tensor, amount: Tensor, fill: Tensor) -> Tensor:
    """About the mean grey, a whole number as in PIL: its sum is then exact, whatever the batch."""
    grey = torch.round(kornia.color.rgb_to_grayscale(images).double() * 255)
    mean = (torch.round(grey.mean(dim=(1, 2, 3), keepdim=True)) / 255).to(images.dtype)
    return mean + (images - mean) * (1 + amount)[:, None, None, None]


def _sharpness(images: Tensor, amount: Tensor, fill: Tensor) -> Tensor:
    return enhance.sharpness(images, 1 + amount)


def _posterize(images: Tensor, bits: Tensor, fill: Tensor) -> Tensor:
    return enhance.posterize(images, bits.to(torch.uint8))


def _solarize(images: Tensor, threshold: Tensor, fill: Tensor) -> Tensor:
    return enhance.solarize(images, threshold)


def _autocontrast(images: Tensor, _: Tensor, fill: Tensor) -> Tensor:
    """Each channel stretched to 0..1; one of a single value stays."""
    low, high = images.amin(dim=(2, 3), keepdim=True), images.amax(dim=(2, 3), keepdim=True)
    return torch.where(high > low, (images - low) / (high - low).clamp(min=1 / 255), images)


def _equalize(images: Tensor, _: Tensor, fill: Tensor) -> Tensor:
    return enhance.equalize(images)


def _identity(images: Tensor, _: Tensor, fill: Tensor) -> Tensor:
    return images


def _solarize_from(level: float, size: int) -> float:
    """Values from 255 (1 - level) on are inverted; half a step below lies no value, so rounding decides nothing."""
    return (math.ceil(255 - 255 * level) - 0.5) / 255


OPERATIONS = {
    "identity": Operation(lambda level, size: 0.0, False, _identity),
    "shear_x": Operation(lambda level, size: 0.3 * level, True, _shear_x),
    "shear_y": Operation(lambda level, size: 0.3 * level, True, _shear_y),
    "translate_x": Operation(lambda level, size: float(int(150 / 331 * size * level)), True, _translate_x),
    "translate_y": Operation(lambda level, size: float(int(150 / 331 * size * level)), True, _translate_y),
    "rotate": Operation(lambda level, size: 30 * level, True, _rotate),
    "brightness": Operation(lambda level, size: 0.9 * level, True, _brightness),
    "colour": Operation(lambda level, size: 0.9 * level, True, _colour),
    "contrast": Operation(lambda level, size: 0.9 * level, True, _contrast),
    "sharpness": Operation(lambda level, size: 0.9 * level, True, _sharpness),
    "posterize": Operation(lambda level, size: 8.0 - round(4 * level), False, _posterize),
    "solarize": Operation(_solarize_from, False, _solarize),
    "autocontrast": Operation(lambda level, size: 0.0, False, _autocontrast),
    "equalize": Operation(lambda level, size: 0.0, False, _equalize),
}


def rand_augment(images: Tensor, draws: NDArray[np.float64], magnitude: int, fill: tuple[float, ...]) -> Tensor:
    """n operations on each of the images, float [B, 3, S, S] in 0..1.

    draws [B, 2 n] in [0, 1): operation and sign, n times. magnitude: 0..30. fill: colour (0..1) of what comes in.
    """
    names = list(OPERATIONS)
    images = _eight_bits(images)
    colour = _eight_bits(torch.tensor(fill, dtype=images.dtype, device=images.device))
    chosen = (draws[:, 0::2] * len(names)).astype(np.int64)
    signs = np.where(draws[:, 1::2] < 0.5, 1.0, -1.0)
    for turn in range(chosen.shape[1]):
        for number in np.unique(chosen[:, turn]):
            operation = OPERATIONS[names[number]]
            rows = np.flatnonzero(chosen[:, turn] == number)
            strength = operation.strength(magnitude / LEVELS, images.shape[-1])
            parameters = torch.from_numpy(strength * (signs[rows, turn] if operation.signed else np.ones(len(rows))))
            where = torch.from_numpy(rows).to(images.device)
            images[where] = _eight_bits(operation.apply(images[where], parameters.to(images), colour))
    return images


def _eight_bits(images: Tensor) -> Tensor:
    return torch.round(images.clamp(0, 1) * 255) / 255
