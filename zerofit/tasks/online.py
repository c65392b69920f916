"""Training on images: `classify`, and a probe that runs its backbone on every batch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn
from transformers import TrainerCallback

from zerofit.data.augment import Augmenter
from zerofit.data.images import IGNORED, open_split
from zerofit.data.loader import Loader, train_loader
from zerofit.data.order import TrainOrder
from zerofit.measure.samples import Samples
from zerofit.models.trained import TrainedModel
from zerofit.plan.spec import RunSpec
from zerofit.tasks import shown
from zerofit.tasks.counting import count
from zerofit.tasks.loop import Prepared, Work
from zerofit.train.engine import Engine
from zerofit.train.image_trainer import ImageTrainer
from zerofit.train.job import Store
from zerofit.train.losses import classification_loss
from zerofit.train.trainer import RunTrainer


class ImageJob:
    """The training and validation data of one rank, and the loss."""

    def __init__(self, spec: RunSpec, device: torch.device) -> None:
        data, seed = spec.recipe.images, spec.recipe.train.seed
        self.spec, self.device = spec, device
        mixing = data.augment.mixup > 0 or data.augment.cutmix > 0
        images = open_split(data, spec.images, "train", seed)
        self.order = TrainOrder(spec.images.train, spec.batches, seed, dist.get_rank())
        self.loader = train_loader(
            images, self.order, workers=data.workers, partners=mixing, pin_memory=device.type == "cuda"
        )
        self.augment = Augmenter.of(spec)
        self.bad_items = torch.zeros((), dtype=torch.int64, device=device)

    def train_loader(self) -> Loader:
        """This rank's micro-batches of an epoch."""
        return self.loader

    def seek(self, step: int) -> None:
        """Make the next pass over the loader begin after `step` optimizer steps of the run."""
        self.order.seek(*divmod(step, self.spec.batches.steps_per_epoch))

    def loss(self, model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        """Mean loss of a micro-batch, augmented here."""
        self.bad_items += (batch["labels"] == IGNORED).sum()
        pixels, targets = self.augment(batch)
        return classification_loss(model(pixels), targets)

    def validate(self, model: nn.Module) -> dict[str, float]:
        """loss, top1 and top5 over the validation split. Collective."""
        data, seed = self.spec.recipe.images, self.spec.recipe.train.seed
        images = open_split(data, self.spec.images, "validation", seed)
        figures = count(model, self.spec, data, images, self.device)
        return {name: figures[name] for name in ("loss", "top1", "top5")}

    def say(self, figures: Mapping[str, float]) -> str:
        """top-1 and loss."""
        return f"top-1 {figures['top1']:.2%}, loss {figures['loss']:.4f}"


class ImageWork(Work):
    """Training on images."""

    def job(self, spec: RunSpec, engine: Engine) -> ImageJob:
        return ImageJob(spec, engine.device)

    def trainer(
        self,
        spec: RunSpec,
        engine: Engine,
        model: TrainedModel,
        job: ImageJob,
        store: Store,
        callbacks: list[TrainerCallback],
    ) -> RunTrainer:
        return ImageTrainer(spec, engine, model, job, store, callbacks)

    def test(self, run: Prepared) -> dict[str, Any]:
        """As the base class; writes test.json."""
        spec, model = run.spec, run.trainer.model_wrapped
        split: Literal["test", "validation"] = "test" if spec.images.test else "validation"
        images = open_split(spec.recipe.images, spec.images, split, spec.recipe.train.seed)
        model.eval()
        samples = Samples(len(spec.images.classes), spec.recipe.train.seed, run.device)
        figures = {"split": split, **count(model, spec, spec.recipe.images, images, run.device, samples)}
        shown.write(spec, images, figures, samples.chosen())
        return figures

    def outcome(self, run: Prepared) -> dict[str, Any]:
        """`bad_items`: unreadable images that were left out."""
        dist.all_reduce(run.job.bad_items)
        return {"bad_items": int(run.job.bad_items)}
