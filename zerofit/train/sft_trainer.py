"""Trainer of the task sft: TRL's SFTTrainer, whose LM head and loss are one, in pieces, without whole logits.

Samples come from ours, tokenised and masked (data/samples.py); of TRL's preparation of data nothing is used.
"""

from __future__ import annotations

from typing import Any

from datasets import Dataset
from transformers import PreTrainedTokenizerBase, TrainerCallback
from trl import SFTTrainer

from zerofit.models.causal_lm import unmask
from zerofit.models.trained import TrainedModel
from zerofit.plan.spec import RunSpec
from zerofit.train.arguments import sft_arguments
from zerofit.train.engine import Engine
from zerofit.train.job import Job, Store
from zerofit.train.trainer import RunTrainer

FIGURES = {"mean_token_accuracy": "token_accuracy", "entropy": "entropy"}


class Quiet:
    """Of TRL's trainers: no word to anybody, and no model card beside a checkpoint."""

    def _send_telemetry(self) -> None: ...

    def create_model_card(self, *_: Any, **__: Any) -> None:
        """None is written."""


class SftTrainer(Quiet, RunTrainer, SFTTrainer):
    """Trains on rows of tokens, each token of the global batch counting as much as any other."""

    figures = FIGURES

    def __init__(
        self,
        spec: RunSpec,
        engine: Engine,
        model: TrainedModel,
        job: Job,
        store: Store,
        callbacks: list[TrainerCallback],
        tokenizer: PreTrainedTokenizerBase,
    ) -> None:
        nothing = Dataset.from_dict({"input_ids": [[spec.text.pad]], "labels": [[-100]]})  # TRL looks at a first row
        unmask(model, spec)
        super().__init__(
            spec,
            engine,
            model,
            job,
            store,
            callbacks,
            sft_arguments(spec, engine),
            train_dataset=nothing,
            eval_dataset=nothing,
            processing_class=tokenizer,
        )

    def tokens_seen(self) -> float:
        """Tokens that all ranks have trained on since the process began, padding left out."""
        return float(self._total_train_tokens)
