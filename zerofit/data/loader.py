"""Batches of images, read by worker processes.

The workers come from a fork server: a fork of a process that runs threads (gloo's, NCCL's) may hang. They draw no
random numbers, so that their number changes nothing. Signals that ask a rank to stop are the rank's to handle: Slurm
and terminals send them to its children as well, and a rank whose workers die saves nothing.
"""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate

from zerofit.config.errors import UserError
from zerofit.data.images import Images
from zerofit.data.order import EvalKey, EvalOrder, TrainKey, TrainOrder

Item = dict[str, Any]


@dataclass(frozen=True)
class Failure:
    """A UserError on its way out of a worker, which DataLoader would bury in a traceback."""

    message: str


class _Keyed(Dataset["Item | Failure"]):
    """Images by the keys of an order."""

    def __init__(self, images: Images) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, key: Any) -> Item | Failure:
        try:
            return self.item(key)
        except UserError as error:
            return Failure(str(error))

    def item(self, key: Any) -> Item:
        raise NotImplementedError


class _Train(_Keyed):
    def __init__(self, images: Images, partners: bool) -> None:
        super().__init__(images)
        self.partners = partners

    def item(self, key: TrainKey) -> Item:
        image, label = self.images[key.sample]
        item = {"images": image, "labels": label, "index": key.sample, "epoch": key.epoch}
        if self.partners:
            image, label = self.images[key.partner]
            item |= {"partner_images": image, "partner_labels": label, "partner_index": key.partner}
        return item


class _Evaluation(_Keyed):
    def item(self, key: EvalKey) -> Item:
        image, label = self.images[key.sample]
        return {"images": image, "labels": label, "index": key.sample, "valid": key.valid}


def _collate(items: list[Item | Failure]) -> dict[str, Tensor] | Failure:
    for item in items:
        if isinstance(item, Failure):
            return item
    return default_collate(items)


def _worker(number: int) -> None:
    for one in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):  # PyTorch has just given SIGTERM its own handler
        signal.signal(one, signal.SIG_IGN)


class Loader(DataLoader[dict[str, Tensor]]):
    """A DataLoader that raises the UserError of an unreadable image as it was."""

    def __iter__(self) -> Iterator[dict[str, Tensor]]:  # type: ignore[override]
        for batch in super().__iter__():
            if isinstance(batch, Failure):
                raise UserError(batch.message)
            yield batch


def train_loader(
    images: Images, order: TrainOrder, workers: int = 0, partners: bool = False, pin_memory: bool = False
) -> Loader:
    """Batches of `order`, each time it is iterated from where the order stands; workers stay until `close`.

    images uint8 [m, 3, S, S], labels int64 [m] (-100: left out), index int64 [m], epoch int64 [m]; with `partners` also
    partner_images, partner_labels, partner_index. Raises UserError at an unreadable image.
    """
    assert order.samples == len(images)
    return _loader(_Train(images, partners), order, workers, persistent=True, pin_memory=pin_memory)


def eval_loader(images: Images, order: EvalOrder, workers: int = 0, pin_memory: bool = False) -> Loader:
    """Batches of `order`; workers stay until the end of each iteration.

    images uint8 [m, 3, S, S], labels int64 [m] (-100: left out), index int64 [m], valid bool [m] (False: only fills).
    """
    assert order.samples == len(images)
    return _loader(_Evaluation(images), order, workers, persistent=False, pin_memory=pin_memory)


def view_loader(images: Images, order: Sampler[list[TrainKey]], workers: int = 0, pin_memory: bool = False) -> Loader:
    """Batches of any order, with the keys of `train_loader`; workers stay until the end of each iteration."""
    return _loader(_Train(images, partners=False), order, workers, persistent=False, pin_memory=pin_memory)


def close(loader: Loader) -> None:
    """End the worker processes; the loader can be iterated again."""
    iterator, loader._iterator = loader._iterator, None
    if iterator is not None:
        iterator._shutdown_workers()  # type: ignore[attr-defined]


def _loader(
    items: _Keyed,
    order: TrainOrder | EvalOrder | Sampler[list[TrainKey]],
    workers: int,
    persistent: bool,
    pin_memory: bool,
) -> Loader:
    context = None
    if workers:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["zerofit.data.deaf", "torch", "PIL.Image", "zerofit.data.loader"])
    return Loader(
        items,  # type: ignore[arg-type]  # it gives items, the loader batches
        batch_sampler=order,
        num_workers=workers,
        collate_fn=_collate,
        pin_memory=pin_memory,
        worker_init_fn=_worker,
        multiprocessing_context=context,
        persistent_workers=persistent and workers > 0,
        generator=torch.Generator(),  # of seeds that nobody uses; without it each iteration would advance torch's own
    )
