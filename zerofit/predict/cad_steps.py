"""Steps of the task cad."""

from __future__ import annotations

from contextlib import AbstractContextManager

from torch import Tensor

from zerofit.models.trained import TrainedModel
from zerofit.predict.batches import Batch, of_cad
from zerofit.predict.heads import COLUMNS, on_gpu
from zerofit.predict.steps import Forward, Steps


class CadSteps(Steps):
    """The loss is the model's own, and its LM head TRL's where that is wide."""

    def on_gpu(self) -> AbstractContextManager[None]:
        return on_gpu()

    def prepare(self, model: TrainedModel) -> None:
        self.logits = (model.config.vocab_size, COLUMNS)

    def batch(self, rows: int, *, training: bool) -> Batch:
        return of_cad(self.spec, rows)

    def loss(self, forward: Forward, batch: Batch) -> Tensor:
        outputs = forward(**batch, num_items_in_batch=self.spec.batches.global_batch)
        loss: Tensor = outputs["loss"]
        return loss

    def evaluate(self, forward: Forward, batch: Batch) -> None:
        forward(**batch)
