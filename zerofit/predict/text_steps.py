"""Steps of the tasks sft and grpo, whose LM head and loss TRL makes one."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

from torch import Tensor

from zerofit.models.causal_lm import unmask
from zerofit.models.trained import TrainedModel
from zerofit.predict.batches import Batch, of_completions, of_text
from zerofit.predict.heads import COLUMNS, fused_head, on_gpu
from zerofit.predict.steps import Forward, Steps


class TextSteps(Steps):
    """sft."""

    outputs: tuple[str, ...] = ("log_probs", "entropy", "is_top1")
    """What TRL's trainer has the head compute."""

    def on_gpu(self) -> AbstractContextManager[None]:
        return on_gpu()

    def prepare(self, model: TrainedModel) -> None:
        fused_head(model, self.outputs)
        self.logits = (model.config.vocab_size, COLUMNS)
        self.unmask(model)

    def unmask(self, model: TrainedModel) -> None:
        """As the task does."""
        unmask(model, self.spec)

    def batch(self, rows: int, *, training: bool) -> Batch:
        return of_text(self.spec, rows)

    def loss(self, forward: Forward, batch: Batch) -> Tensor:
        loss: Tensor = -self._scored(forward, batch).log_probs.sum()
        return loss

    def evaluate(self, forward: Forward, batch: Batch) -> None:
        self._scored(forward, batch)

    def _scored(self, forward: Forward, batch: Batch) -> Any:
        return forward(**batch, use_cache=False, fused_lm_head=True)


class CompletionSteps(TextSteps):
    """grpo, once completions are made. Evaluation makes completions, and trains on none."""

    outputs = ("log_probs", "entropy")

    def unmask(self, model: TrainedModel) -> None:
        """Prompts are filled up on the left."""

    def batch(self, rows: int, *, training: bool) -> Batch:
        return of_completions(self.spec, rows)

    def _scored(self, forward: Forward, batch: Batch) -> Any:
        return forward(**batch, fused_lm_head=True)
