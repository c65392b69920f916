"""RandAugment (Cubuk et al. 2019, arXiv:1909.13719) on batches, each sample with its own operations.

Operations and their strengths are those of torchvision's `RandAugment`, which follows the paper. They are defined on
8-bit images: every operation's result is rounded to 8 bits, so that Posterize, Solarize and Equalize mean what they
mean there. Geometry is bilinear, and what comes into view has the data's mean colour.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import kornia.color
import kornia.enhance as enhance
import numpy as np
import torch
from kornia.geometry.transform import warp_affine
from numpy.typing import NDArray
from torch import Tensor

from zerofit.data.placing import on_device

LEVELS = 30


class Warp(NamedTuple):
    """Moves pixels. `strength(level 0..1, image size)` is the amount, negated for half of the samples.

    `place(amounts [b] on the CPU, image size)` gives linear [b, 2, 2] and shift [b, 2]: the pixel at p goes to
    linear p + shift; p counts from the corner of the image.
    """

    strength: Callable[[float, int], float]
    place: Callable[[Tensor, int], tuple[Tensor, Tensor]]


class Filter(NamedTuple):
    """Changes values. `strength(level 0..1, image size)` is the parameter, negated for half of the samples where
    `signed`.

    `apply(images [b, 3, S, S] in 0..1, parameters [b])` gives images of that shape.
    """

    strength: Callable[[float, int], float]
    signed: bool
    apply: Callable[[Tensor, Tensor], Tensor]


def _matrices(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
    return torch.stack([a, b, c, d], dim=-1).view(-1, 2, 2)


def _shear_x(amount: Tensor, size: int) -> tuple[Tensor, Tensor]:
    one, zero = torch.ones_like(amount), torch.zeros_like(amount)
    return _matrices(one, -amount, zero, one), torch.stack([zero, zero], dim=-1)


def _shear_y(amount: Tensor, size: int) -> tuple[Tensor, Tensor]:
    one, zero = torch.ones_like(amount), torch.zeros_like(amount)
    return _matrices(one, zero, -amount, one), torch.stack([zero, zero], dim=-1)


def _translate_x(pixels: Tensor, size: int) -> tuple[Tensor, Tensor]:
    one, zero = torch.ones_like(pixels), torch.zeros_like(pixels)
    return _matrices(one, zero, zero, one), torch.stack([-pixels, zero], dim=-1)


def _translate_y(pixels: Tensor, size: int) -> tuple[Tensor, Tensor]:
    one, zero = torch.ones_like(pixels), torch.zeros_like(pixels)
    return _matrices(one, zero, zero, one), torch.stack([zero, -pixels], dim=-1)


def _rotate(degrees: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Counter-clockwise about the centre."""
    cos, sin = torch.cos(torch.deg2rad(degrees)), torch.sin(torch.deg2rad(degrees))
    linear = _matrices(cos, sin, -sin, cos)
    centre = size / 2
    return linear, centre - linear.sum(dim=-1) * centre


def _brightness(images: Tensor, amount: Tensor) -> Tensor:
    return images * (1 + amount)[:, None, None, None]


def _colour(images: Tensor, amount: Tensor) -> Tensor:
    return enhance.adjust_saturation_with_gray_subtraction(images, 1 + amount)


def _contrast(images: Tensor, amount: Tensor) -> Tensor:
    """About the mean grey, a whole number as in PIL: its sum is then exact, whatever the batch."""
    grey = torch.round(kornia.color.rgb_to_grayscale(images).double() * 255)
    mean = (torch.round(grey.mean(dim=(1, 2, 3), keepdim=True)) / 255).to(images.dtype)
    return mean + (images - mean) * (1 + amount)[:, None, None, None]


def _sharpness(images: Tensor, amount: Tensor) -> Tensor:
    return enhance.sharpness(images, 1 + amount)


def _posterize(images: Tensor, bits: Tensor) -> Tensor:
    return enhance.posterize(images, bits.to(torch.uint8))


def _solarize(images: Tensor, threshold: Tensor) -> Tensor:
    return enhance.solarize(images, threshold)


def _autocontrast(images: Tensor, _: Tensor) -> Tensor:
    """Each channel stretched to 0..1; one of a single value stays."""
    low, high = images.amin(dim=(2, 3), keepdim=True), images.amax(dim=(2, 3), keepdim=True)
    return torch.where(high > low, (images - low) / (high - low).clamp(min=1 / 255), images)


def _equalize(images: Tensor, _: Tensor) -> Tensor:
    return enhance.equalize(images)


def _solarize_from(level: float, size: int) -> float:
    """Values from 255 (1 - level) on are inverted; half a step below lies no value, so rounding decides nothing."""
    return (math.ceil(255 - 255 * level) - 0.5) / 255


OPERATIONS: dict[str, Warp | Filter | None] = {
    "identity": None,
    "shear_x": Warp(lambda level, size: 0.3 * level, _shear_x),
    "shear_y": Warp(lambda level, size: 0.3 * level, _shear_y),
    "translate_x": Warp(lambda level, size: float(int(150 / 331 * size * level)), _translate_x),
    "translate_y": Warp(lambda level, size: float(int(150 / 331 * size * level)), _translate_y),
    "rotate": Warp(lambda level, size: 30 * level, _rotate),
    "brightness": Filter(lambda level, size: 0.9 * level, True, _brightness),
    "colour": Filter(lambda level, size: 0.9 * level, True, _colour),
    "contrast": Filter(lambda level, size: 0.9 * level, True, _contrast),
    "sharpness": Filter(lambda level, size: 0.9 * level, True, _sharpness),
    "posterize": Filter(lambda level, size: 8.0 - round(4 * level), False, _posterize),
    "solarize": Filter(_solarize_from, False, _solarize),
    "autocontrast": Filter(lambda level, size: 0.0, False, _autocontrast),
    "equalize": Filter(lambda level, size: 0.0, False, _equalize),
}


class Change(NamedTuple):
    """What is done to some of the images in a turn: what they have chosen, or all warps at once."""

    rows: NDArray[np.int64]
    numbers: NDArray[np.float32]
    """Parameters [b] of a filter, matrices [b, 6] of warps."""
    apply: Callable[[Tensor, Tensor], Tensor] | None
    """Null: they are warps."""


def rand_augment(images: Tensor, draws: NDArray[np.float64], magnitude: int, fill: tuple[float, ...]) -> Tensor:
    """n operations on each of the images, float [B, 3, S, S] in 0..1.

    draws [B, 2 n] in [0, 1): operation and sign, n times. magnitude: 0..30. fill: colour (0..1) of what comes in.
    The host prepares everything and sends it at once, so that it waits for nothing.
    """
    names = list(OPERATIONS)
    images = _eight_bits(images)
    chosen = (draws[:, 0::2] * len(names)).astype(np.int64)
    signs = np.where(draws[:, 1::2] < 0.5, 1.0, -1.0)
    changes = [
        change
        for turn in range(chosen.shape[1])
        for change in _changes(chosen[:, turn], signs[:, turn], magnitude / LEVELS, images.shape[-1])
    ]
    if not changes:
        return images
    numbers = on_device(
        np.concatenate([np.array(fill, np.float32), *(one.numbers.ravel() for one in changes)]), images.device
    )
    rows = on_device(np.concatenate([one.rows for one in changes]), images.device)
    colour, *given = numbers.to(images.dtype).split([len(fill), *(one.numbers.size for one in changes)])
    colour = _eight_bits(colour)
    for one, where, values in zip(changes, rows.split([len(one.rows) for one in changes]), given, strict=True):
        some = images[where]
        made = _warped(some, values.view(-1, 2, 3), colour) if one.apply is None else one.apply(some, values)
        images[where] = _eight_bits(made)
    return images


def _changes(chosen: NDArray[np.int64], signs: NDArray[np.float64], level: float, size: int) -> Iterator[Change]:
    """Of a turn, in which each image has chosen one operation: they are of different images, so their order is none."""
    operations = list(OPERATIONS.values())
    moved: list[NDArray[np.int64]] = []
    matrices: list[Tensor] = []
    for number in np.unique(chosen):
        operation = operations[number]
        if operation is None:
            continue
        rows = np.flatnonzero(chosen == number)
        strength = operation.strength(level, size)
        amounts = (strength * signs[rows]).astype(np.float32)
        if isinstance(operation, Filter):
            yield Change(rows, amounts if operation.signed else np.full_like(amounts, strength), operation.apply)
            continue
        linear, shift = operation.place(torch.from_numpy(amounts), size)
        corner = linear.sum(dim=-1) * 0.5 - 0.5  # kornia counts from the centre of the first pixel
        moved.append(rows)
        matrices.append(torch.cat([linear, (shift + corner)[..., None]], dim=-1))
    if moved:
        yield Change(np.concatenate(moved), torch.cat(matrices).view(-1, 6).numpy(), None)


def _warped(images: Tensor, matrices: Tensor, fill: Tensor) -> Tensor:
    size = (images.shape[-2], images.shape[-1])
    return warp_affine(images, matrices, size, padding_mode="fill", fill_value=fill)


def _eight_bits(images: Tensor) -> Tensor:
    return torch.round(images.clamp(0, 1) * 255) / 255
