"""Micro-batches of CAD models: a prompt, places for a cloud and images, and what is learnt, the command text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from zerofit.config.cad import Cad
from zerofit.data.cad_clouds import open_clouds
from zerofit.data.cad_inputs import Sizes, Slots
from zerofit.data.cad_order import CadEvalOrder, CadKey, CadOrder
from zerofit.data.cad_samples import CadSamples, Tokens, open_cad_samples
from zerofit.data.cad_views import Pixels, open_views
from zerofit.data.images import IGNORED
from zerofit.data.loader import Loader
from zerofit.data.splits import SplitName
from zerofit.plan.slots import CHANNELS, IMAGE, POINTS, TEXT
from zerofit.plan.spec import CadFacts

Batch = dict[str, Tensor]


@dataclass(frozen=True)
class CadSample:
    """A model as a row sees it."""

    prompt: Tokens
    commands: Tokens
    cloud: NDArray[np.float32] | None
    """[points, 6]."""
    images: tuple[Pixels, ...]
    """Each uint8 [size, size, 3]."""


class Models(Dataset["CadSample | None"]):
    """The models of a split by the keys of an order; null for one that only fills a batch."""

    def __init__(self, data: Cad, facts: CadFacts, split: SplitName) -> None:
        self.data = data
        self.samples: CadSamples = open_cad_samples(facts, split)
        self.bare = self.samples.bare
        self.clouds = None if facts.clouds_in is None else open_clouds(facts.clouds_in, data.points)
        self.views = None if facts.views_in is None else open_views(facts.views_in)

    def __len__(self) -> int:
        return len(self.samples)

    def sizes(self, slots: Slots) -> Sizes:
        """Tokens of each."""
        return self.samples.sizes(slots)

    def __getitem__(self, key: CadKey) -> CadSample | None:
        if not key.valid:
            return None
        told, inputs = self.samples[key.sample], self.data.shares[key.share].inputs
        cloud, images = None, list[Pixels]()
        if inputs.points:
            assert self.clouds is not None, "the facts are of the same mix"
            cloud = self.clouds[told.row]
        if inputs.image:
            assert self.views is not None, "the facts are of the same mix"
            images = self.views.pixels(told.row, key.views)
        return CadSample(told.caption if inputs.text else self.bare, told.commands, cloud, tuple(images))


@dataclass(frozen=True)
class CadCollator:
    """Makes a micro-batch of samples."""

    pad: int
    slots: Slots
    image_size: int | None
    """Pixels per side of images; null where the model sees none, and gets none."""
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __call__(self, samples: Sequence[CadSample | None]) -> Batch:
        """input_ids, labels (-100: no target), attention_mask and slots, int64 [B, T]; filled up on the right.

        For an encoder that the model has: points, the bits of float32 [P, points, 6] as int32, and images, float32
        [I, 3, S, S], in the order of rows and then of a row's images; where no row has any, a cloud of one point or
        an image, of zeros. Bits, since engines round floating-point inputs to the type that they compute in, and
        positions would suffer.
        """
        there = [sample for sample in samples if sample is not None]
        rows = [self._row(sample) for sample in there] or [self._nothing()]
        size = (len(rows), max(len(row[0]) for row in rows))
        tokens, labels = np.full(size, self.pad, dtype=np.int64), np.full(size, IGNORED, dtype=np.int64)
        mask, slots = np.zeros(size, dtype=np.int64), np.zeros(size, dtype=np.int64)
        for number, (ids, kinds, prompt) in enumerate(rows):
            length = len(ids)
            tokens[number, :length], mask[number, :length], slots[number, :length] = ids, 1, kinds
            labels[number, prompt:length] = ids[prompt:]
        named = {"input_ids": tokens, "labels": labels, "attention_mask": mask, "slots": slots}
        batch = {name: torch.from_numpy(array) for name, array in named.items()}
        if self.slots.points:
            batch["points"] = self._clouds([one.cloud for one in there if one.cloud is not None])
        if self.image_size is not None:
            batch["images"] = self._images([image for one in there for image in one.images])
        return batch

    def prompt_length(self, sample: CadSample) -> int:
        """Tokens that come before what is learnt."""
        return len(sample.prompt) + sum(self._shown(sample))

    def _row(self, sample: CadSample) -> tuple[Tokens, NDArray[np.int64], int]:
        """Its tokens, whose each place is, and how many come before what is learnt."""
        kinds = np.repeat(
            [TEXT, POINTS, IMAGE, TEXT],
            [len(sample.prompt), *self._shown(sample), len(sample.commands)],
        )
        tokens = np.full(len(kinds), self.pad, dtype=np.int32)
        tokens[: len(sample.prompt)] = sample.prompt
        tokens[len(kinds) - len(sample.commands) :] = sample.commands
        return tokens, kinds, len(kinds) - len(sample.commands)

    def _shown(self, sample: CadSample) -> tuple[int, int]:
        """Places of its cloud, and of its images."""
        return self.slots.points * (sample.cloud is not None), self.slots.image * len(sample.images)

    def _nothing(self) -> tuple[Tokens, NDArray[np.int64], int]:
        """Two tokens and no target: every rank has something to forward."""
        return np.full(2, self.pad, dtype=np.int32), np.zeros(2, dtype=np.int64), 2

    def _clouds(self, clouds: Sequence[NDArray[np.float32]]) -> Tensor:
        whole = np.stack(clouds) if clouds else np.zeros((1, 1, CHANNELS), dtype=np.float32)
        return torch.from_numpy(whole.view(np.int32))

    def _images(self, images: Sequence[Pixels]) -> Tensor:
        assert self.image_size is not None
        if not images:
            return torch.zeros(1, 3, self.image_size, self.image_size)
        pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 255
        mean, std = (torch.tensor(one).view(1, 3, 1, 1) for one in (self.mean, self.std))
        return ((pixels - mean) / std).contiguous()


def train_loader(models: Models, order: CadOrder, collate: CadCollator, pin_memory: bool = False) -> Loader:
    """Micro-batches of `order`, each time it is iterated from where the order stands."""
    assert order.samples == len(models)
    return _loader(models, order, collate, pin_memory)


def evaluation_batches(models: Models, order: CadEvalOrder, collate: CadCollator) -> Loader:
    """This rank's batches of an evaluation, as many on every rank."""
    return _loader(models, order, collate, pin_memory=False)


def _loader(items: Any, order: CadOrder | CadEvalOrder, collate: CadCollator, pin_memory: bool) -> Loader:
    return Loader(
        items,
        batch_sampler=order,  # without worker processes: a sample is slices of mapped files, and a small PNG
        collate_fn=collate,
        pin_memory=pin_memory,
        generator=torch.Generator(),  # of seeds that nobody uses; without it each iteration would advance torch's own
    )
