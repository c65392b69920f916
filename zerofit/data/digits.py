"""The embedded set: 1797 handwritten digits of 8 x 8 pixels (scikit-learn's `load_digits`, UCI)."""

from __future__ import annotations

import numpy as np
import torch

from zerofit.config.data import Data
from zerofit.data.contents import Contents, Pixels, SplitName

TEST = 360


def open_digits(data: Data) -> Contents:
    """1437 training and 360 test samples; every class has its share of both, the same ones each time."""
    from sklearn.datasets import load_digits  # a second of import that other sources do not pay
    from sklearn.model_selection import train_test_split

    values, labels = load_digits(return_X_y=True)
    levels = torch.from_numpy(np.round(values * (255 / 16)).astype(np.uint8)).view(-1, 1, 8, 8)
    parts = train_test_split(np.arange(len(labels)), test_size=TEST, stratify=labels, random_state=0)

    def part(split: SplitName, items: np.ndarray) -> Pixels:
        return Pixels(levels[torch.from_numpy(items)], labels[items].astype(np.int64), f"digits, {split}")

    names: tuple[SplitName, ...] = ("train", "test")
    splits = {name: part(name, items) for name, items in zip(names, parts, strict=True)}
    return Contents("digits", tuple(str(i) for i in range(10)), splits)
