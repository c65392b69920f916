"""Features of a frozen backbone, computed once by all ranks, and kept: the next run finds them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from zerofit.config.errors import UserError
from zerofit.config.model import PatchLM
from zerofit.data.augment import Augmenter
from zerofit.data.cache import FeatureCache, Features, Part, default_root
from zerofit.data.contents import SplitName
from zerofit.data.fingerprint import fingerprint
from zerofit.data.images import Images, open_split
from zerofit.data.loader import close, view_loader
from zerofit.data.shares import ChunkOrder, share
from zerofit.measure.images_progress import ImagesProgress
from zerofit.models.classifier import ImageClassifier
from zerofit.plan.spec import RunSpec
from zerofit.train.pulse import PULSE

VOLATILE = ("transformers_version", "_name_or_path", "architectures", "dtype")
"""Fields of a transformers config that change no feature."""


def extract(model: nn.Module, spec: RunSpec, device: torch.device, weights_hash: str) -> Features:
    """Features of the training images (`probe.views` views each) and of the test (else validation) images. Collective.

    `model` is an ImageClassifier, or an engine's wrapper of one, called as it would be in evaluation: any autocast is
    the caller's. `weights_hash` stands for every weight that `features` depends on. What lies in the cache for the same
    weights, preprocessing and images is taken from there; of a cache that was left half written the rest is computed.
    With one view it is the evaluation view; with more, view v of an image is its augmentation in epoch v.
    Raises UserError: a damaged cache, a full drive, an unreadable image, features that are not finite. Raises Stopped;
    chunks that are done stay in the cache.
    """
    probe, data, seed = spec.recipe.probe, spec.recipe.images, spec.recipe.train.seed
    assert probe is not None
    classifier = next(module for module in model.modules() if isinstance(module, ImageClassifier))
    split: SplitName = "test" if spec.images.test else "validation"
    images = {name: open_split(data, spec.images, name, seed) for name in ("train", split)}
    width = classifier.head.in_features
    train = Part("train", probe.views, len(images["train"]), width)
    test = Part(split, 1, len(images[split]), width)
    facts = {
        "weights": weights_hash,
        "preprocessing": preprocessing(classifier, spec),
        "data": {name: fingerprint(some) for name, some in images.items()},
    }
    cache = FeatureCache(probe.cache or default_root(os.environ), facts, (train, test))
    todo = _agree(cache)
    started, computed = time.perf_counter(), 0
    model.eval()
    for part in cache.parts:
        if todo[part.name]:
            _compute(model, classifier, spec, device, cache, part, todo[part.name], images[part.name])
            computed += sum(len(part.span(chunk)) for chunk in todo[part.name])
    dist.barrier()
    for part in cache.parts:
        left = cache.missing(part)
        if left:
            raise UserError(
                f"probe.cache: {len(left)} chunks of {part.name} are still missing in {cache.directory}: the ranks did "
                "not write to the same directory; name one that all hosts share"
            )
    return Features(
        train=cache.vectors(train),
        train_labels=cache.labels(train),
        test=cache.vectors(test)[0],
        test_labels=cache.labels(test),
        split=split,
        directory=cache.directory,
        images_s=computed / (time.perf_counter() - started) if computed else None,
    )


def preprocessing(classifier: ImageClassifier, spec: RunSpec) -> dict[str, Any]:
    """All that features depend on besides weights and images."""
    recipe, model, probe = spec.recipe, spec.recipe.model, spec.recipe.probe
    assert probe is not None
    config = classifier.config.to_dict()
    augmented = (
        {"seed": recipe.train.seed, **recipe.images.augment.model_dump(mode="json")} if probe.views > 1 else None
    )
    reading = {"mean": recipe.images.mean, "std": recipe.images.std, "on_bad_item": recipe.images.on_bad_item}
    return {
        "image_size": spec.images.image_size,
        **reading,
        "augment": augmented,
        "precision": spec.precision,
        "kind": model.kind,
        "pool": model.pool if isinstance(model, PatchLM) else None,
        "attention_mask": model.attention_mask if isinstance(model, PatchLM) else None,
        "tokens": classifier.tokens,
        "shape": {name: value for name, value in config.items() if name not in VOLATILE},
    }


def _agree(cache: FeatureCache) -> dict[str, list[int]]:
    """The chunks that are not done, by part: as rank 0 sees them, which makes the files first. Collective."""
    shared: list[dict[str, list[int]] | None] = [None]
    if dist.get_rank() == 0:
        cache.create()
        shared[0] = {part.name: cache.missing(part) for part in cache.parts}
    dist.broadcast_object_list(shared, src=0)
    cache.check()
    assert shared[0] is not None
    return shared[0]


def _compute(
    model: nn.Module,
    classifier: ImageClassifier,
    spec: RunSpec,
    device: torch.device,
    cache: FeatureCache,
    part: Part,
    todo: Sequence[int],
    images: Images,
) -> None:
    """Fill chunks of a part: every rank makes the same number of equally large forwards, as sharded engines need."""
    rank, ranks = dist.get_rank(), dist.get_world_size()
    mine = share(part, todo, spec.batches.evaluate_micro, rank, ranks)
    loader = view_loader(images, ChunkOrder(mine), spec.recipe.images.workers, pin_memory=device.type == "cuda")
    view = _views(spec, augmented=part.views > 1)
    progress = None
    if rank == 0:
        left = sum(len(part.span(chunk)) for chunk in todo)
        progress = ImagesProgress(f"features, {part.name}", part.rows, part.rows - left)
    try:
        with torch.no_grad(), _seen_by_head(classifier) as seen:  # not inference_mode: see `count`
            batches = iter(loader)
            for turn, chunk in enumerate(mine.chunks):
                vectors, labels = [], []
                for number in range(mine.forwards):
                    PULSE.leave_if_asked(f"features of {part.name}, batch {turn * mine.forwards + number + 1}")
                    batch = {name: _moved(name, value, device) for name, value in next(batches).items()}
                    model(view(batch))
                    vectors.append(seen.pop())
                    labels.append(batch["labels"])
                rows = len(part.span(chunk))
                if turn < mine.kept:
                    found = torch.cat(vectors)[:rows]
                    _check_finite(found, part, chunk, images)
                    cache.write(part, chunk, found.to(torch.bfloat16).cpu(), torch.cat(labels)[:rows].cpu())
                if progress is not None:
                    together = todo[turn * ranks : (turn + 1) * ranks]
                    progress.add(sum(len(part.span(one)) for one in together))
    finally:
        close(loader)
        if progress is not None:
            progress.close()


def _moved(name: str, value: Tensor, device: torch.device) -> Tensor:
    return value.to(device, non_blocking=True) if name == "images" else value


def _views(spec: RunSpec, augmented: bool) -> Callable[[dict[str, Tensor]], Tensor]:
    """From a batch to pixels float32 [B, 3, S, S]."""
    data = spec.recipe.images
    if not augmented:
        normalise = Augmenter.plain(mean=data.mean, std=data.std)
        return lambda batch: normalise(batch["images"])
    assert data.augment.mixup == data.augment.cutmix == 0
    augment = Augmenter.of(spec)
    return lambda batch: augment(batch)[0]


@contextmanager
def _seen_by_head(classifier: ImageClassifier) -> Iterator[list[Tensor]]:
    """What the head is given, forward by forward.

    A sharded engine has whole weights in a forward of the whole model alone, so `features` is not called by itself.
    """
    seen: list[Tensor] = []

    def keep(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        seen.append(inputs[0].detach())

    first = classifier.head if classifier.head_norm is None else classifier.head_norm
    handle = first.register_forward_pre_hook(keep)
    try:
        yield seen
    finally:
        handle.remove()


def _check_finite(vectors: Tensor, part: Part, chunk: int, images: Images) -> None:
    finite = vectors.isfinite().all(dim=1)
    if not finite.all():
        row = part.span(chunk).start + int(finite.logical_not().nonzero()[0])
        raise UserError(
            f"probe: the features of {images.name(row % part.images)} are not finite; use strategy.precision=fp32, or "
            "other weights"
        )
