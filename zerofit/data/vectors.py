"""Rows of features on the device: kept there where they fit, else read from the memory map, some batches ahead."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor

RESIDENT = 0.6  # of the GPU's free memory: the rest is the heads' and the optimizer's
AHEAD = 3  # batches that are being read while another is worked on


class Vectors:
    """Features [views, n, width] of any float dtype, and their labels int64 [n]; what comes out is on `device`."""

    def __init__(self, vectors: Tensor, labels: Tensor, device: torch.device) -> None:
        assert vectors.ndim == 3
        assert len(labels) == vectors.shape[1]
        self.images, self.device, self.labels = vectors.shape[1], device, labels.to(device)
        self.rows = vectors.flatten(0, 1)
        self.streams = False
        if device.type == "cuda" and self.rows.device.type == "cpu":
            free, _ = torch.cuda.mem_get_info(device)
            self.streams = self.rows.numel() * self.rows.element_size() > RESIDENT * free
            if not self.streams:
                self.rows = self.rows.to(device)

    def batches(self, order: Iterable[tuple[int, Tensor]]) -> Iterator[tuple[Tensor, Tensor]]:
        """(view, images int64 [B]) -> (vectors float32 [B, width], labels int64 [B]).

        Fastest where the images' numbers are on the device of `rows`.
        """
        if not self.streams:
            for view, images in order:
                yield self._arrived(self._taken(view, images), images)
            return
        reading: deque[tuple[Future[Tensor], Tensor]] = deque()
        with ThreadPoolExecutor(max_workers=1) as reader:
            for view, images in order:
                reading.append((reader.submit(self._read, view, images), images))
                if len(reading) > AHEAD:
                    taken, those = reading.popleft()
                    yield self._arrived(taken.result(), those)
            for taken, those in reading:
                yield self._arrived(taken.result(), those)

    def _taken(self, view: int, images: Tensor) -> Tensor:
        return self.rows.index_select(0, images.to(self.rows.device) + view * self.images)

    def _read(self, view: int, images: Tensor) -> Tensor:
        return self._taken(view, images).pin_memory()

    def _arrived(self, taken: Tensor, images: Tensor) -> tuple[Tensor, Tensor]:
        return taken.to(self.device, non_blocking=True).float(), self.labels[images.to(self.device)]
