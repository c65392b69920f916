"""Training on tokens: what the task sft puts into the loop."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from transformers import TrainerCallback

from zerofit.data.contents import SplitName
from zerofit.data.isolation import check_isolation
from zerofit.data.loader import Loader
from zerofit.data.order import TrainOrder
from zerofit.data.samples import open_samples
from zerofit.data.text_loader import collator_of, train_loader, validation_batches
from zerofit.data.tokenizer import load_tokenizer
from zerofit.models.trained import TrainedModel
from zerofit.plan.spec import RunSpec
from zerofit.tasks.loop import Prepared, Work
from zerofit.train.engine import Engine
from zerofit.train.job import Store
from zerofit.train.pulse import PULSE
from zerofit.train.sft_trainer import SftTrainer
from zerofit.train.trainer import RunTrainer


class TokenJob:
    """The training and validation samples of one rank."""

    def __init__(self, spec: RunSpec, device: torch.device) -> None:
        self.spec, self.device = spec, device
        samples = open_samples(spec.text, "train")
        self.order = TrainOrder(spec.text.train, spec.batches, spec.recipe.train.seed, dist.get_rank())
        self.loader = train_loader(samples, self.order, collator_of(spec), pin_memory=device.type == "cuda")

    def train_loader(self) -> Loader:
        """This rank's micro-batches of an epoch."""
        return self.loader

    def seek(self, step: int) -> None:
        """Make the next pass over the loader begin after `step` optimizer steps of the run."""
        self.order.seek(*divmod(step, self.spec.batches.steps_per_epoch))

    def validate(self, model: nn.Module) -> dict[str, float]:
        """loss, token_accuracy and perplexity over the validation split. Collective."""
        figures = score(model, self.spec, "validation", self.device)
        return {name: figures[name] for name in ("loss", "token_accuracy", "perplexity")}

    def say(self, figures: Mapping[str, float]) -> str:
        """loss, perplexity and accuracy."""
        return (
            f"loss {figures['loss']:.4f}, perplexity {figures['perplexity']:,.2f}, "
            f"{figures['token_accuracy']:.2%} of the tokens right"
        )


class TokenWork(Work):
    """Training on tokens."""

    def job(self, spec: RunSpec, engine: Engine) -> TokenJob:
        return TokenJob(spec, engine.device)

    def trainer(
        self,
        spec: RunSpec,
        engine: Engine,
        model: TrainedModel,
        job: TokenJob,
        store: Store,
        callbacks: list[TrainerCallback],
    ) -> RunTrainer:
        """As the base class. Raises UserError where rows of a pack would see each other."""
        if spec.recipe.text.packing:
            check_isolation(model.config, model.config._attn_implementation, engine.device)
        return SftTrainer(spec, engine, model, job, store, callbacks, load_tokenizer(spec.recipe))

    def test(self, run: Prepared) -> dict[str, Any]:
        spec, model = run.spec, run.trainer.model_wrapped
        split: SplitName = "test" if spec.text.test else "validation"
        model.eval()
        return {"split": split, **score(model, spec, split, run.device)}

    def outcome(self, run: Prepared) -> dict[str, Any]:
        return {}


def score(model: nn.Module, spec: RunSpec, split: SplitName, device: torch.device) -> dict[str, Any]:
    """loss (nats a token), perplexity, token_accuracy and tokens (targets) of `model` over a split. Collective.

    Every rank makes the same number of forwards, as sharded engines need. Raises Stopped.
    """
    facts, ranks = spec.text, dist.get_world_size()
    samples = open_samples(facts, split)
    batches = validation_batches(samples, spec.batches.evaluate_micro, dist.get_rank(), ranks, collator_of(spec))
    total = torch.zeros(3, dtype=torch.float64, device=device)
    with torch.no_grad():  # not inference_mode: fully_shard's hooks need version counters
        for number, batch in enumerate(batches, 1):
            PULSE.leave_if_asked(f"evaluation, batch {number}")
            here = {name: value.to(device) for name, value in batch.items()}
            total += _sums(model(**here, use_cache=False, fused_lm_head=True))
    dist.all_reduce(total)
    loss, tokens, right = total.tolist()
    assert tokens > 0, "a row without a target is left out"
    loss /= tokens
    return {
        "loss": loss,
        "perplexity": math.exp(min(loss, 700.0)),
        "token_accuracy": right / tokens,
        "tokens": int(tokens),
    }


def _sums(outputs: Any) -> Tensor:
    """Of a batch: losses, targets, targets that are predicted right; float64 [3]."""
    parts = (-outputs.log_probs.sum(), outputs.label_mask.sum(), outputs.is_top1.sum())
    return torch.stack([part.double() for part in parts])
