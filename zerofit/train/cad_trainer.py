"""Trainer of the task cad: the loss is the model's, of the tokens of the global batch."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from transformers import TrainerCallback

from zerofit.models.trained import TrainedModel
from zerofit.plan.spec import RunSpec
from zerofit.train.arguments import token_arguments
from zerofit.train.engine import Engine
from zerofit.train.job import Job, Store
from zerofit.train.trainer import RunTrainer


class CadTrainer(RunTrainer):
    """Trains on command texts, each token of the global batch counting as much as any other."""

    figures = {"token_accuracy": "token_accuracy"}

    def __init__(
        self,
        spec: RunSpec,
        engine: Engine,
        model: TrainedModel,
        job: Job,
        store: Store,
        callbacks: list[TrainerCallback],
    ) -> None:
        data = job.train_loader().dataset
        arguments = token_arguments(spec, engine)
        super().__init__(spec, engine, model, job, store, callbacks, arguments, train_dataset=data, eval_dataset=data)
        self._counts = torch.zeros(3, device=engine.device)  # tokens, targets, and targets that came out right
        self._tokens = 0.0

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """As Trainer's; what came out right is counted on the way."""
        assert not return_outputs
        loss, outputs = super().compute_loss(model, inputs, True, num_items_in_batch)
        counts = [inputs["attention_mask"].sum(), outputs["targets"], outputs["right"]]
        self._counts += torch.stack([count.float() for count in counts])
        return loss

    def log(self, logs: dict[str, float], *others: Any, **more: Any) -> None:
        """As Trainer's, with `token_accuracy` of the steps since the line before. Collective."""
        if "loss" in logs:
            counts = self._counts.double()
            self._counts = torch.zeros_like(self._counts)
            dist.all_reduce(counts)
            tokens, targets, right = counts.tolist()
            self._tokens += tokens
            logs = {**logs, "token_accuracy": right / targets}
        super().log(logs, *others, **more)

    def tokens_seen(self) -> float:
        """Tokens that all ranks have trained on since the process began, padding left out."""
        return self._tokens
