"""How long a grid of heads trains on cached features: one JSON line.

    python bench/heads.py        # 16 heads x 100 classes, 50,000 x 4,096, batch 1,024, 90 epochs
    python bench/heads.py --device cpu --samples 10000 --width 768 --classes 10 --batch 256

Half of the heads have a BatchNorm. The features are random, and lie in memory; --streams reads them batch by batch, as
is done with those that do not fit on the GPU. Reading them from the drive is not part of the time, choosing and testing
is not part of train_s.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from zerofit.config.schema import Recipe
from zerofit.data import vectors
from zerofit.data.cache import Features
from zerofit.measure.knn import knn_top1
from zerofit.plan.batch import make_batches
from zerofit.plan.hardware import detect
from zerofit.plan.spec import ImageFacts, RunSpec
from zerofit.train.heads import train_heads


def plan(options: argparse.Namespace) -> RunSpec:
    """The run, whose model is never built."""
    rates = [2.0 ** (i - options.heads // 4) for i in range(options.heads // 2)]
    recipe = Recipe.model_validate(
        {
            "task": "probe",
            "model": {"kind": "vit", "shape": "vit-tiny"},
            "data": {"source": "digits"},
            "train": {"epochs": options.epochs, "micro_batch": options.batch, "global_batch": options.batch},
            "optimizer": {"name": options.optimizer, "lr": 0.1, "weight_decay": 0.0, "warmup": {"fraction": 0.1}},
            "probe": {"features": "cached", "lr_scales": rates, "batch_norms": [False, True]},
        }
    )
    classes = tuple(str(i) for i in range(options.classes))
    facts = ImageFacts(
        classes=classes,
        train=options.samples,
        validation=options.samples // 5,
        test=options.samples // 5,
        validation_from="test",
        image_size=32,
    )
    return RunSpec(
        recipe=recipe,
        run_dir=Path("runs/bench"),
        data=facts,
        hardware=detect(),
        batches=make_batches(recipe, facts, 1),
        lr=0.1,
        precision="fp32",
        shape=None,
        deepspeed=None,
        versions={},
        git=None,
    )


def random_features(options: argparse.Namespace) -> Features:
    """A blob for each class, in noise that hides most of it."""
    random = torch.Generator().manual_seed(0)
    centres = torch.randn(options.classes, options.width, generator=random)

    def some(count: int) -> tuple[torch.Tensor, torch.Tensor]:
        labels = torch.randint(options.classes, (count,), generator=random)
        noise = torch.randn(count, options.width, generator=random)
        return (0.05 * centres[labels] + noise).bfloat16(), labels

    train, labels = some(options.samples)
    return Features(train[None], labels, *some(options.samples // 5), "test", Path(), None)


def main() -> None:
    """Parse, train, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--heads", type=int, default=16)
    parser.add_argument("--classes", type=int, default=100)
    parser.add_argument("--samples", type=int, default=50_000)
    parser.add_argument("--width", type=int, default=4096)
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--epochs", type=int, default=90)
    parser.add_argument("--optimizer", default="lars", choices=["sgd", "lars", "adamw"])
    parser.add_argument("--streams", action="store_true", help="do not keep the features on the GPU")
    options = parser.parse_args()
    if options.streams:
        vectors.RESIDENT = 0.0
    device = torch.device(options.device)
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    spec, features = plan(options), random_features(options)
    started = time.perf_counter()
    found = train_heads(features, spec, device)
    wall = time.perf_counter() - started
    started = time.perf_counter()
    near = knn_top1(
        features.train[0], features.train_labels, features.test, features.test_labels, options.classes, device
    )
    result: dict[str, Any] = {
        **{name: value for name, value in vars(options).items() if name != "device"},
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else f"cpu x {torch.get_num_threads()}",
        "steps": found.batches.total_steps,
        "train_s": round(found.train_s, 2),
        "wall_s": round(wall, 2),
        "samples_s": round(found.samples_s),
        "top1": found.test["top1"],
        "knn_top1": near,
        "knn_s": round(time.perf_counter() - started, 2),
    }
    print(json.dumps(result), flush=True)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
