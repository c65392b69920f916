"""Linear heads on cached features: a grid of them trained at once, the best chosen on images held out of training.

Learning rates, with BatchNorm and without, are tried on the same batches, in the order of an online run. Head i belongs
to rank i % ranks, which sees the whole batch: the number of ranks changes nothing.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from zerofit.data.cache import Features
from zerofit.data.vectors import Vectors
from zerofit.measure.accuracy import Tally
from zerofit.measure.progress import Progress
from zerofit.measure.samples import Sample, Samples
from zerofit.plan.batch import make_batches
from zerofit.plan.spec import Batches, RunSpec
from zerofit.train.head_grid import Trial, choose, divide, first_weights, grid, order, schedule
from zerofit.train.head_math import EPS, Heads
from zerofit.train.pulse import PULSE

ROWS = 4096  # at a time, in evaluation


@dataclass(frozen=True)
class Probed:
    """What training the heads gave; equal on every rank."""

    trials: tuple[Trial, ...]
    """In the order of the grid: all lr_scales without or with BatchNorm, then all with the other."""
    best: int
    """Which of them was chosen: highest held-out top1, then lowest held-out loss."""
    state: dict[str, Tensor]
    """Its tensors by their names in the model (head.weight, head.bias, head_norm.running_mean, ...), on the CPU."""
    losses: Tensor
    """Each head's loss at each step, float32 [steps, heads]."""
    test: dict[str, Any]
    """Figures of the chosen head over the evaluation split (`Tally.result_of`)."""
    samples: list[Sample]
    """A few of that split."""
    batches: Batches
    """Lengths of what was trained; an epoch is shorter than the recipe's where images were held out or unreadable."""
    train_s: float
    """Seconds of training."""

    @property
    def samples_s(self) -> float:
        """Images, each counted once for all heads, that a second trained on."""
        return self.batches.total_steps * self.batches.global_batch / self.train_s


def train_heads(features: Features, spec: RunSpec, device: torch.device) -> Probed:
    """Train the grid, choose, test. Collective.

    With several heads, `probe.held_out` of the training images is held out (each class its share), and the chosen head
    has not seen them; one head trains on all of them. Raises UserError where too few images are left for a batch, and
    where no head's loss stayed finite. Raises Stopped at the end of an epoch.
    """
    trials = grid(spec)
    used, held = divide(features.train_labels, spec, len(trials))
    facts = spec.images.model_copy(update={"train": len(used)})
    batches = make_batches(spec.recipe, facts, spec.batches.ranks, spec.batches.micro)
    rank, ranks = dist.get_rank(), dist.get_world_size()
    own = range(rank, len(trials), ranks)
    vectors = Vectors(features.train, features.train_labels, device)
    started = time.perf_counter()
    groups, losses = _train(vectors, used, [trials[i] for i in own], spec, batches)
    train_s = time.perf_counter() - started
    found = _judged(groups, [trials[i] for i in own], losses, vectors, held, batches)
    everyone: list[Any] = [None] * ranks
    dist.all_gather_object(everyone, (found, losses, train_s))
    for one, (theirs, _, _) in enumerate(everyone):
        for index, trial in enumerate(theirs):
            trials[one + index * ranks] = trial
    curves = torch.stack([everyone[i % ranks][1][:, i // ranks] for i in range(len(trials))], dim=1)
    best = choose(trials)
    shared = [_state(groups, best // ranks) if best % ranks == rank else None]
    dist.broadcast_object_list(shared, src=best % ranks)
    assert shared[0] is not None
    samples = Samples(len(spec.images.classes), spec.recipe.train.seed, device)
    test = tested(shared[0], features, len(spec.images.classes), device, samples)
    slowest = max(seconds for _, _, seconds in everyone)
    return Probed(tuple(trials), best, shared[0], curves, test, samples.chosen(), batches, slowest)


def fitted(state: dict[str, Tensor], batch_norm: bool) -> dict[str, Tensor]:
    """The same head for a model that has a BatchNorm before it, or has none, as `probe.batch_norm` says.

    A BatchNorm that is left out is worked into the weights; one that has to be there is made to do nothing.
    """
    weight, bias = state["head.weight"].double(), state["head.bias"].double()
    if batch_norm == ("head_norm.running_mean" in state):
        return state
    if batch_norm:
        idle = {"running_mean": torch.zeros_like(weight[0]), "running_var": torch.full_like(weight[0], 1 - EPS)}
        return {
            **state,
            **{f"head_norm.{name}": value.float() for name, value in idle.items()},
            "head_norm.num_batches_tracked": torch.tensor(0),
        }
    scale = (state["head_norm.running_var"].double() + EPS).rsqrt()
    bias = bias - weight @ (scale * state["head_norm.running_mean"].double())
    return {"head.weight": (weight * scale).float(), "head.bias": bias.float()}


def _train(
    vectors: Vectors, used: NDArray[np.int64], trials: Sequence[Trial], spec: RunSpec, batches: Batches
) -> tuple[list[tuple[list[int], Heads]], Tensor]:
    """Train heads: (their numbers, them), first those without BatchNorm; losses float32 [steps, heads] on the CPU."""
    device = vectors.device
    weight, factors = first_weights(spec, vectors.rows.shape[1], device), schedule(spec, batches)
    groups = []
    for norm in (False, True):
        numbers = [i for i, trial in enumerate(trials) if trial.batch_norm == norm]
        if numbers:
            scales = torch.tensor([trials[i].lr_scale for i in numbers], dtype=torch.float64)
            rates = (spec.lr * factors[:, None] * scales).to(device, torch.float32)
            recipe = spec.recipe
            groups.append((numbers, Heads(weight, rates, recipe.optimizer, norm, recipe.train.label_smoothing)))
    losses = torch.zeros(batches.total_steps, len(trials), device=device)
    ends = {*range(batches.steps_per_epoch, batches.total_steps, batches.steps_per_epoch), batches.total_steps}
    if not trials:
        for done in sorted(ends):  # a rank without heads is asked as often as those that train some
            PULSE.leave_if_asked(f"heads, step {done}")
        return groups, losses.cpu()
    views = vectors.rows.shape[0] // vectors.images
    steps = order(used, views, spec.recipe.train.seed, batches, vectors.rows.device)
    progress = Progress(batches.total_steps) if dist.get_rank() == 0 else None
    columns = [torch.tensor(numbers, device=device) for numbers, _ in groups]
    started = time.perf_counter()
    if progress is not None:
        progress.start()
    with torch.no_grad():
        for step, (batch, labels) in enumerate(vectors.batches(steps)):
            for (_, heads), column in zip(groups, columns, strict=True):
                losses[step].index_copy_(0, column, heads.step(batch, labels))
            done = step + 1
            if done in ends:
                PULSE.leave_if_asked(f"heads, step {done}")
            if progress is not None and done in ends:
                loss = float(losses[step].min())  # waits for the device, once an epoch
                rate = done * batches.global_batch / (time.perf_counter() - started)
                progress.update(done, loss=loss, samples_s=rate)
    if progress is not None:
        progress.close()
    return groups, losses.cpu()


def _judged(
    groups: Sequence[tuple[list[int], Heads]],
    trials: Sequence[Trial],
    losses: Tensor,
    vectors: Vectors,
    held: NDArray[np.int64],
    batches: Batches,
) -> list[Trial]:
    """The trials with their figures. Held-out images are judged in view 0."""
    tallies = [Tally(heads.classes, vectors.device) for _, heads in groups for _ in range(heads.number)]
    parts = torch.from_numpy(held).split(ROWS) if len(held) and trials else ()
    with torch.no_grad():
        for batch, labels in vectors.batches((0, part) for part in parts):
            every = [logits for _, heads in groups for logits in heads.logits(batch).unbind(dim=1)]
            for tally, logits in zip(tallies, every, strict=True):
                tally.add(logits, labels)
    numbers = [number for own, _ in groups for number in own]
    ends = losses[-batches.steps_per_epoch :].double().mean(dim=0).tolist()
    judged = list(trials)
    for number, tally in zip(numbers, tallies, strict=True):
        figures = tally.result() if len(held) else {"top1": None, "loss": None}
        trial = trials[number]
        judged[number] = Trial(trial.lr_scale, trial.batch_norm, figures["top1"], figures["loss"], loss=ends[number])
    return judged


def _state(groups: Sequence[tuple[list[int], Heads]], number: int) -> dict[str, Tensor]:
    numbers, heads = next(group for group in groups if number in group[0])
    return heads.state(numbers.index(number))


def tested(
    state: dict[str, Tensor], features: Features, classes: int, device: torch.device, samples: Samples
) -> dict[str, Any]:
    """Figures of a head over the evaluation split, which `samples` is shown.

    Raises UserError where none of its images could be read.
    """
    state = {name: value.to(device) for name, value in state.items()}
    vectors, tally = Vectors(features.test[None], features.test_labels, device), Tally(classes, device)
    parts = torch.arange(vectors.images).split(ROWS)
    for part, (batch, labels) in zip(parts, vectors.batches((0, part) for part in parts), strict=True):
        if "head_norm.running_mean" in state:
            mean, var = state["head_norm.running_mean"], state["head_norm.running_var"]
            batch = F.batch_norm(batch, mean, var, training=False, eps=EPS)
        logits = F.linear(batch, state["head.weight"], state["head.bias"])
        tally.add(logits, labels)
        samples.add(part.to(device), logits, labels)
    return tally.result()
