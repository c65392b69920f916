"""Trainer of tasks on images: the loss is the job's."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from transformers import TrainerCallback

from zerofit.data.placing import DRAWN
from zerofit.models.trained import TrainedModel
from zerofit.plan.spec import RunSpec
from zerofit.train.arguments import training_arguments
from zerofit.train.engine import Engine
from zerofit.train.job import LossJob, Store
from zerofit.train.trainer import RunTrainer


class ImageTrainer(RunTrainer):
    """Trains with `job.loss`."""

    def __init__(
        self,
        spec: RunSpec,
        engine: Engine,
        model: TrainedModel,
        job: LossJob,
        store: Store,
        callbacks: list[TrainerCallback],
    ) -> None:
        data = job.train_loader().dataset
        arguments = training_arguments(spec, engine)
        super().__init__(spec, engine, model, job, store, callbacks, arguments, train_dataset=data, eval_dataset=data)
        self.loss_of = job.loss

    def _prepare_inputs(self, inputs: dict[str, Any]) -> dict[str, Any]:
        sent = super()._prepare_inputs({name: value for name, value in inputs.items() if name not in DRAWN})
        return {**sent, **{name: inputs[name] for name in DRAWN if name in inputs}}

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """The job's loss of a micro-batch."""
        assert not return_outputs
        return self.loss_of(model, inputs)
