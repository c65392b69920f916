"""The task cad on rows of random tokens, clouds and images: for comparing engines, not for learning anything.

Every row is a function of (its number, what it shows) alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from zerofit.data.loader import Loader
from zerofit.data.order import permutation
from zerofit.plan.slots import image_tokens, point_tokens
from zerofit.plan.spec import CadFacts, RunSpec

ROWS, TEST_ROWS, VOCABULARY, PAD = 64, 8, 48, 0
TEXT, POINTS, IMAGE = range(3)
SHOWN = ((), (POINTS,), (IMAGE,), (POINTS, IMAGE, IMAGE))
"""What rows show, by their numbers in turn."""
APART = {"text+points": 1.0, "text+image": 1.0}
"""The mix for which micro-batches show, in turn, clouds alone and images alone: on two ranks each one of these.

A row has one to four images.
"""
CLOUD, PIXELS = 11, 8
FACTS = CadFacts(
    train=ROWS,
    validation=TEST_ROWS,
    test=TEST_ROWS,
    validation_from="test",
    rows=ROWS,
    tokens=ROWS * 20,
    targets=ROWS * 8,
    longest=40,
    left_out=0,
    vocabulary=VOCABULARY,
    pad=PAD,
    stops=(1,),
    samples=Path("unused"),
    clouds=0.5,
    images=0.75,
    points=CLOUD,
    image_size=PIXELS,
)


@dataclass(frozen=True)
class Row:
    """One row, without padding."""

    tokens: Tensor
    labels: Tensor
    slots: Tensor
    points: list[Tensor]
    images: list[Tensor]


def row_of(number: int, shown: Sequence[int], spec: RunSpec) -> Row:
    """Places of what is shown, a prompt, and an answer that is learnt; how long they are differs from row to row."""
    draw = np.random.default_rng(number)
    model = spec.recipe.cad_model
    size = {POINTS: point_tokens(model), IMAGE: image_tokens(model)}
    places = [kind for kind in shown for _ in range(size[kind])]
    prompt, answer = draw.integers(2, 7), draw.integers(3, 13)
    text = draw.integers(2, VOCABULARY, prompt + answer)
    tokens = torch.from_numpy(np.concatenate([np.full(len(places), PAD), text]))
    labels = tokens.clone()
    labels[: len(places) + prompt] = -100
    slots = torch.tensor(places + [TEXT] * len(text))
    made = {POINTS: (CLOUD, 6), IMAGE: (3, PIXELS, PIXELS)}
    drawn = [(kind, torch.from_numpy(draw.uniform(-1, 1, made[kind])).float()) for kind in shown]
    clouds, images = ([one for kind, one in drawn if kind == wanted] for wanted in (POINTS, IMAGE))
    return Row(tokens, labels, slots, clouds, images)


def batch_of(rows: Sequence[Row]) -> dict[str, Tensor]:
    """A micro-batch, filled up on the right; of what no row shows there is one of zeros."""
    pad = nn.utils.rnn.pad_sequence
    points = [one for row in rows for one in row.points] or [torch.zeros(CLOUD, 6)]
    images = [one for row in rows for one in row.images] or [torch.zeros(3, PIXELS, PIXELS)]
    return {
        "input_ids": pad([row.tokens for row in rows], True, PAD),
        "labels": pad([row.labels for row in rows], True, -100),
        "attention_mask": pad([torch.ones_like(row.tokens) for row in rows], True, 0),
        "slots": pad([row.slots for row in rows], True, TEXT),
        "points": torch.stack(points),
        "images": torch.stack(images),
    }


def global_batch(spec: RunSpec, step: int) -> list[Row]:
    """The rows of an optimizer step, in the order of its micro-batches."""
    sizes, apart = spec.batches, spec.recipe.cad.mix == APART
    epoch, place = divmod(step, sizes.steps_per_epoch)
    order = permutation(ROWS, spec.recipe.train.seed, epoch).tolist()
    numbers = order[place * sizes.global_batch : (place + 1) * sizes.global_batch]
    pictured = [(POINTS,) if i // sizes.micro % 2 == 0 else (IMAGE,) * (1 + n % 4) for i, n in enumerate(numbers)]
    shown = pictured if apart else [SHOWN[number % 4] for number in numbers]
    return [row_of(number, kinds, spec) for number, kinds in zip(numbers, shown, strict=True)]


def test_rows(spec: RunSpec) -> list[Row]:
    """Those that are not trained on."""
    return [row_of(ROWS + i, SHOWN[i % 4], spec) for i in range(TEST_ROWS)]


class Order:
    """This rank's micro-batches of an epoch, from `step` of it on, as their places in it."""

    def __init__(self, spec: RunSpec, rank: int) -> None:
        self.sizes, self.rank, self.epoch, self.step = spec.batches, rank, 0, 0

    def __len__(self) -> int:
        return (self.sizes.steps_per_epoch - self.step) * self.sizes.accumulation

    def __iter__(self) -> Iterator[tuple[int, int]]:
        for step in range(self.step, self.sizes.steps_per_epoch):
            for forward in range(self.sizes.accumulation):
                yield self.epoch * self.sizes.steps_per_epoch + step, forward * self.sizes.ranks + self.rank


class Batches(torch.utils.data.Dataset[dict[str, Tensor]]):
    """Micro-batches by (step, number)."""

    def __init__(self, spec: RunSpec) -> None:
        self.spec = spec

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Tensor]:
        (step, number), micro = key, self.spec.batches.micro
        return batch_of(global_batch(self.spec, step)[number * micro : (number + 1) * micro])


class SyntheticJob:
    """Rows of one rank."""

    def __init__(self, spec: RunSpec) -> None:
        self.spec, self.order = spec, Order(spec, dist.get_rank())
        self.loader = Loader(Batches(spec), batch_size=None, sampler=self.order, generator=torch.Generator())

    def train_loader(self) -> Loader:
        return self.loader

    def seek(self, step: int) -> None:
        self.order.epoch, self.order.step = divmod(step, self.spec.batches.steps_per_epoch)

    def validate(self, model: nn.Module) -> dict[str, float]:
        rows, ranks = test_rows(self.spec), dist.get_world_size()
        with torch.no_grad():
            out = model(**batch_of(rows[dist.get_rank() :: ranks]))
        sums = torch.stack([out["total"].double(), out["targets"].double()])
        dist.all_reduce(sums)
        return {"loss": (sums[0] / sums[1]).item()}

    def say(self, figures: Mapping[str, float]) -> str:
        return ""


class SyntheticCad:
    """The task."""

    def train(self, spec: RunSpec, resume: Path | None) -> dict[str, Any]:
        from zerofit.tasks.loop import train

        return train(spec, resume)

    def work(self) -> Any:
        from zerofit.tasks.loop import Prepared, Work
        from zerofit.train.cad_trainer import CadTrainer

        class SyntheticWork(Work):
            def job(self, spec: RunSpec, engine: Any) -> SyntheticJob:
                return SyntheticJob(spec)

            def trainer(self, *parts: Any) -> CadTrainer:
                return CadTrainer(*parts)

            def test(self, run: Prepared) -> dict[str, Any]:
                run.trainer.model_wrapped.eval()
                return run.job.validate(run.trainer.model_wrapped)

            def outcome(self, run: Prepared) -> dict[str, Any]:
                return {}

            def flops(self, model: Any) -> None:
                return None

        return SyntheticWork()


@contextmanager
def synthetic_cad() -> Iterator[None]:
    """Meanwhile, `task: cad` is that task."""
    from zerofit.tasks import TASKS

    with patch.dict(TASKS, cad=SyntheticCad()):
        yield
