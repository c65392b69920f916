"""A grid of heads on cached features: which there are, on which images, in which order, at which rates they train."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import get_scheduler

from zerofit.config.errors import UserError
from zerofit.data.images import IGNORED, draw
from zerofit.data.order import permutation
from zerofit.models.initialise import seed_of, untouched_random_state
from zerofit.plan.spec import Batches, RunSpec
from zerofit.train.arguments import SCHEDULES

CHOICE = 3  # the draw of images for choosing: see `zerofit.data.images.draw`


@dataclass(frozen=True)
class Trial:
    """A head of the grid, and how it did. `top1` and `held_out_loss` are over the held-out images (null: none were)."""

    lr_scale: float
    batch_norm: bool
    top1: float | None = None
    held_out_loss: float | None = None
    loss: float = math.nan
    """Mean training loss over the last epoch (of the last steps, where there was less than one)."""


def grid(spec: RunSpec) -> list[Trial]:
    """The heads that the recipe asks for."""
    probe = spec.recipe.probe
    assert probe is not None
    norms = dict.fromkeys(probe.batch_norms or (probe.batch_norm,))
    return [Trial(scale, norm) for norm in norms for scale in probe.lr_scales]


def divide(labels: Tensor, spec: RunSpec, heads: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Which training images are trained on, and which are held out, of those with a label (int64 [n]; -100: none)."""
    probe = spec.recipe.probe
    assert probe is not None
    known = np.flatnonzero(labels.numpy() != IGNORED)
    if heads == 1:
        return known, known[:0]
    count = max(1, round(probe.held_out * len(known)))
    if count >= len(known):
        raise UserError(f"probe.held_out: {probe.held_out} leaves none of the {len(known)} training images to train on")
    held = known[draw(labels.numpy()[known], count, spec.recipe.train.seed, CHOICE)]
    return np.setdiff1d(known, held), held


def choose(trials: Sequence[Trial]) -> int:
    """The best of the heads whose loss is finite. Raises UserError where there is none."""
    finite = [i for i, trial in enumerate(trials) if math.isfinite(trial.loss)]
    if not finite:
        raise UserError(
            "probe: the loss of every head is no finite number; try a smaller optimizer.lr, or smaller probe.lr_scales"
        )
    return min(finite, key=lambda i: (-(trials[i].top1 or 0.0), trials[i].held_out_loss or 0.0, i))


def first_weights(spec: RunSpec, width: int, device: torch.device) -> Tensor:
    """float32 [classes, width]: those that a model of this recipe begins with, a function of the seed alone."""
    assert spec.recipe.probe is not None
    weight = torch.empty(len(spec.images.classes), width, device=device)
    with untouched_random_state(device):
        torch.manual_seed(seed_of(spec.recipe.train.seed, "head.weight"))
        return nn.init.normal_(weight, std=spec.recipe.probe.head_std)


def schedule(spec: RunSpec, batches: Batches) -> Tensor:
    """float64 [steps]: the learning rate's factor at each optimizer step, as Trainer's."""
    unused = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    made: Any = get_scheduler(
        SCHEDULES[spec.recipe.optimizer.schedule], unused, batches.warmup_steps, batches.total_steps
    )
    (factor,) = made.lr_lambdas
    return torch.tensor([factor(step) for step in range(batches.total_steps)], dtype=torch.float64)


def order(
    used: NDArray[np.int64], views: int, seed: int, batches: Batches, device: torch.device
) -> Iterator[tuple[int, Tensor]]:
    """(view, images) of every step: those of `TrainOrder`, whole global batches; an epoch has one view."""
    for step in range(batches.total_steps):
        epoch, number = divmod(step, batches.steps_per_epoch)
        if number == 0:
            images = torch.from_numpy(used[permutation(len(used), seed, epoch)]).to(device)
        yield epoch % views, images[number * batches.global_batch : (number + 1) * batches.global_batch]
