"""An encoded image becomes a square uint8 tensor: upright, RGB, resized."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

ORIENTATION = 0x0112  # the EXIF tag of cameras that are held sideways


def decode(encoded: bytes) -> Image.Image:
    """The (first) image of a JPEG, PNG, ... file, in RGB. Raises whatever PIL raises at a broken file."""
    image: Image.Image = Image.open(BytesIO(encoded))
    if image.getexif().get(ORIENTATION, 1) != 1:
        image = ImageOps.exif_transpose(image)
    return to_rgb(image)


def to_rgb(image: Image.Image) -> Image.Image:
    """Grey, palette, CMYK, ... in RGB. Transparency is dropped; of 16 bits the upper 8 stay.

    Raises ValueError for floating-point pixels, whose range nothing tells.
    """
    if image.mode == "F":
        raise ValueError("floating-point pixels have no fixed range")
    if image.mode == "I" or image.mode.startswith("I;16"):  # PIL's own conversion clips everything above 255
        return Image.fromarray((np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8)).convert("RGB")
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # PIL warns at the direct way
    return image.convert("RGB")


def square(image: Image.Image, size: int) -> Tensor:
    """RGB image of any shape -> uint8 [3, size, size]: its middle square, resized (bicubic, antialiased)."""
    width, height = image.size
    if (width, height) != (size, size):
        side = min(width, height)
        left, top = (width - side) / 2, (height - side) / 2
        box = (left, top, left + side, top + side)
        image = image.resize((size, size), Image.Resampling.BICUBIC, box=box)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()
