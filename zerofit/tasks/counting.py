"""Accuracy over a split, counted exactly: no sample twice, whatever the ranks and the padding."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from zerofit.config.data import Data
from zerofit.data.augment import Augmenter
from zerofit.data.images import Images
from zerofit.data.loader import close, eval_loader
from zerofit.data.order import EvalOrder
from zerofit.measure.accuracy import Tally
from zerofit.measure.samples import Samples
from zerofit.plan.spec import RunSpec
from zerofit.train.pulse import PULSE
from zerofit.train.statistics import share_statistics


def count(
    model: nn.Module,
    spec: RunSpec,
    data: Data,
    images: Images,
    device: torch.device,
    samples: Samples | None = None,
) -> dict[str, Any]:
    """top1, top5 (fractions), loss, samples and the confusion matrix of `model` over `images` of `data`. Collective.

    Labels are numbers of the run's classes. `samples` is shown every batch. Every rank makes the same number of
    equally large forwards, as sharded engines need. Raises Stopped.
    """
    share_statistics(model)
    classes = len(spec.images.classes)
    order = EvalOrder(len(images), spec.batches.evaluate_micro, dist.get_rank(), dist.get_world_size())
    loader = eval_loader(images, order, workers=data.workers)
    normalise = Augmenter.plain(mean=data.mean, std=data.std)
    tally = Tally(classes, device)
    try:
        with torch.no_grad():  # not inference_mode: fully_shard's hooks need version counters
            for number, batch in enumerate(loader, 1):
                PULSE.leave_if_asked(f"evaluation, batch {number}")
                batch = {name: value.to(device) for name, value in batch.items()}
                logits = model(normalise(batch["images"]))
                tally.add(logits, batch["labels"], batch["valid"])
                if samples is not None:
                    samples.add(batch["index"], logits, batch["labels"], batch["valid"])
    finally:
        close(loader)
    state = tally.state()
    dist.all_reduce(state)
    return Tally.result_of(state, classes)
