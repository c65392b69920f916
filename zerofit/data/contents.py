"""What a source gives: labelled splits, opened when they are needed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from zerofit.data.decode import square
from zerofit.data.splits import SplitName

Labels: TypeAlias = NDArray[np.int64]


class Split(ABC):
    """Labelled images of one split. It travels to worker processes, so it holds no open file."""

    labels: Labels
    """Label of each image [n]."""

    def __len__(self) -> int:
        return len(self.labels)

    @abstractmethod
    def image(self, item: int) -> Image.Image:
        """Image `item` in RGB. Raises whatever its decoder raises at a broken file."""

    @abstractmethod
    def name(self, item: int) -> str:
        """What tells a user which image this is."""

    def square(self, item: int, size: int) -> Tensor:
        """Image `item` as uint8 [3, size, size]."""
        return square(self.image(item), size)


class Pixels(Split):
    """A split that lies in memory: levels uint8 [n, 1 or 3, height, width]; worker processes share it."""

    def __init__(self, levels: Tensor, labels: Labels, origin: str) -> None:
        assert levels.ndim == 4
        assert len(levels) == len(labels)
        self.levels, self.labels, self.origin = levels, labels, origin

    def image(self, item: int) -> Image.Image:
        levels = self.levels[item].numpy()
        return (
            Image.fromarray(levels[0]).convert("RGB")
            if len(levels) == 1
            else Image.fromarray(levels.transpose(1, 2, 0))
        )

    def name(self, item: int) -> str:
        return f"{self.origin}, image {item}"

    def square(self, item: int, size: int) -> Tensor:
        if self.levels.shape[2:] != (size, size):
            return super().square(item, size)
        return self.levels[item].expand(3, size, size)


class Contents:
    """A data set: its classes in label order, and its splits; one given as a function is opened when it is needed."""

    def __init__(
        self, where: str, classes: tuple[str, ...], splits: Mapping[SplitName, Split | Callable[[], Split]]
    ) -> None:
        self.where, self.classes, self._splits = where, classes, dict(splits)

    def has(self, split: SplitName) -> bool:
        """Whether there is such a split."""
        return split in self._splits

    def open(self, split: SplitName) -> Split:
        """The split, which must be there; it is opened once."""
        found = self._splits[split]
        if not isinstance(found, Split):
            found = self._splits[split] = found()
        return found
