"""A probe on cached features: the frozen backbone runs once, then a grid of heads is trained in seconds."""

from __future__ import annotations

import json
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors.torch import save_file
from torch import Tensor

from zerofit.checkpoint.store import RunStore
from zerofit.data.cache import Features
from zerofit.data.images import open_split
from zerofit.measure.knn import knn_top1
from zerofit.measure.memory import Peak
from zerofit.models.build import build_classifier
from zerofit.models.classifier import ImageClassifier
from zerofit.models.frozen import write_frozen
from zerofit.plan.spec import RunSpec, origin_of
from zerofit.tasks import shown
from zerofit.tasks.features import extract
from zerofit.tasks.loop import largest, memory, this_device
from zerofit.train.engine import WEIGHTS, Engine
from zerofit.train.head_grid import schedule
from zerofit.train.heads import Probed, fitted, train_heads
from zerofit.train.strategy import evaluation_engine
from zerofit.train.tracking import LONG, make_tracking
from zerofit.train.writes import Writes


def train_cached(spec: RunSpec) -> dict[str, Any]:
    """Extract features (or find them), train heads on them, choose one, test it; result.json's body. Collective."""
    probe, device = spec.recipe.probe, this_device(spec)
    assert probe is not None
    peak, store = Peak(device), RunStore(spec)
    model, engine = backbone_of(spec, device)
    assert model.frozen_hash is not None, "a probe freezes its backbone"
    with engine.autocast():
        features = extract(model, spec, device, model.frozen_hash)
    frozen = model.frozen_hash
    del model  # the heads need its memory
    if device.type == "cuda":
        torch.cuda.empty_cache()
    probed = train_heads(features, spec, device)
    knn = _knn(features, spec, device)
    _save(store, spec, fitted(probed.state, probe.batch_norm), frozen, probed.batches.total_steps)
    if dist.get_rank() == 0:
        _record(spec, probed)
    test = {"split": features.split, **probed.test}
    images = open_split(spec.recipe.images, spec.images, features.split, spec.recipe.train.seed)
    shown.write(spec, images, test, probed.samples)
    return {
        "test": test,
        "steps": probed.batches.total_steps,
        "train_s": round(probed.train_s, 3),
        "samples_s": round(probed.samples_s, 3),
        "knn_top1": knn,
        "heads": [asdict(trial) for trial in probed.trials],
        "chosen": asdict(probed.trials[probed.best]),
        "features": {
            "directory": str(features.directory),
            "images_s": None if features.images_s is None else round(features.images_s, 1),
            "reused": features.images_s is None,
            "views": probe.views,
        },
        **memory(largest(peak.figures())),
    }


def backbone_of(spec: RunSpec, device: torch.device) -> tuple[ImageClassifier, Engine]:
    """The model to extract features with, held as the strategy holds it in evaluation, and its engine. Collective."""
    engine = evaluation_engine(spec, device)
    model = build_classifier(spec, engine.placement(), engine.compute_dtype)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trained == {"head.weight", "head.bias"}, f"features depend on {trained}"  # `check_cached` lets no other be
    model.eval()
    return model, engine


def _knn(features: Features, spec: RunSpec, device: torch.device) -> float:
    """k = 20, cosine: a figure that comes free with the cache. Rank 0 counts it for all."""
    shared = [0.0]
    if dist.get_rank() == 0:
        classes = len(spec.images.classes)
        train, test = features.train[0], features.test
        shared[0] = knn_top1(train, features.train_labels, test, features.test_labels, classes, device)
    dist.broadcast_object_list(shared, src=0)
    return shared[0]


def _save(store: RunStore, spec: RunSpec, state: dict[str, Tensor], frozen: str, step: int) -> None:
    """The chosen head, in the form of an online probe's checkpoint: `zerofit eval` reads it."""

    def save_head(staging: Path, _: Writes) -> None:
        if dist.get_rank() == 0:
            directory = staging / f"checkpoint-{step}"
            directory.mkdir()
            save_file({name: value.contiguous() for name, value in state.items()}, directory / WEIGHTS)
            write_frozen(directory, frozen, origin_of(spec))

    size = sum(value.nbytes for value in state.values())
    store.commit(step, None, (save_head,), size=size, last=True)


def _record(spec: RunSpec, probed: Probed) -> None:
    """metrics.jsonl: step, epoch, loss and lr of the chosen head; written at the end, when it is known which it is.

    Trackers get the same lines.
    """
    tracking = make_tracking(spec, partial(print, flush=True))
    tracking.start(0)
    factors = schedule(spec, probed.batches)
    scale, every = probed.trials[probed.best].lr_scale, spec.recipe.track.every
    losses = probed.losses[:, probed.best].tolist()
    with (spec.run_dir / "metrics.jsonl").open("w", encoding="utf-8") as file:
        for step in range(every, len(losses) + 1, every):
            record = {
                "step": step,
                "epoch": round(step / probed.batches.steps_per_epoch, 4),
                "loss": losses[step - 1],
                "lr": spec.lr * float(factors[step - 1]) * scale,
            }
            file.write(json.dumps(record) + "\n")
            tracking.log(record)
    tracking.end()
    tracking.wait(LONG)
