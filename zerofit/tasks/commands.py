"""Training on command texts of CAD models: what the task cad puts into the loop."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from transformers import TrainerCallback

from zerofit.config.cad import Share
from zerofit.data.cad import image_size_of, slots_of
from zerofit.data.cad_loader import CadCollator, Models, evaluation_batches, train_loader
from zerofit.data.cad_order import CadEvalOrder, CadOrder
from zerofit.data.loader import Loader
from zerofit.data.splits import SplitName
from zerofit.models.trained import TrainedModel
from zerofit.plan.spec import RunSpec
from zerofit.tasks.loop import Prepared, Work
from zerofit.train.cad_trainer import CadTrainer
from zerofit.train.engine import Engine
from zerofit.train.job import Store
from zerofit.train.pulse import PULSE
from zerofit.train.trainer import RunTrainer


class CommandJob:
    """The training and validation models of one rank."""

    def __init__(self, spec: RunSpec, device: torch.device) -> None:
        self.spec, self.device = spec, device
        data = spec.recipe.cad
        models = Models(data, spec.cad, "train")
        sizes, seed = models.sizes(slots_of(spec.recipe)), spec.recipe.train.seed
        self.order = CadOrder(sizes, data, spec.batches, seed, dist.get_rank())
        self.loader = train_loader(models, self.order, collator(spec), pin_memory=device.type == "cuda")

    def train_loader(self) -> Loader:
        """This rank's micro-batches of an epoch."""
        return self.loader

    def seek(self, step: int) -> None:
        """Make the next pass over the loader begin after `step` optimizer steps of the run."""
        self.order.seek(*divmod(step, self.spec.batches.steps_per_epoch))

    def validate(self, model: nn.Module) -> dict[str, float]:
        """loss, token_accuracy and perplexity over the validation split, and the first two of each inputs. Collective.

        Those of `text+points` are called loss/text+points and token_accuracy/text+points.
        """
        figures = score(model, self.spec, "validation", self.device)
        whole = {name: figures[name] for name in ("loss", "token_accuracy", "perplexity")}
        return whole | {
            f"{name}/{inputs}": value for inputs, found in figures["inputs"].items() for name, value in found.items()
        }

    def say(self, figures: Mapping[str, float]) -> str:
        """loss and accuracy, and the accuracy of each inputs."""
        each = [
            f"{figures[f'token_accuracy/{name}']:.2%} by {name}"
            for name in (one.inputs.name for one in self.spec.recipe.cad.shares)
        ]
        more = f" ({', '.join(each)})" if len(each) > 1 else ""
        return f"loss {figures['loss']:.4f}, {figures['token_accuracy']:.2%} of the tokens right{more}"


class CommandWork(Work):
    """Training on command texts."""

    def job(self, spec: RunSpec, engine: Engine) -> CommandJob:
        return CommandJob(spec, engine.device)

    def trainer(
        self,
        spec: RunSpec,
        engine: Engine,
        model: TrainedModel,
        job: CommandJob,
        store: Store,
        callbacks: list[TrainerCallback],
    ) -> RunTrainer:
        return CadTrainer(spec, engine, model, job, store, callbacks)

    def test(self, run: Prepared) -> dict[str, Any]:
        spec, model = run.spec, run.trainer.model_wrapped
        split: SplitName = "test" if spec.cad.test else "validation"
        model.eval()
        return {"split": split, **score(model, spec, split, run.device)}

    def outcome(self, run: Prepared) -> dict[str, Any]:
        return {}


def collator(spec: RunSpec) -> CadCollator:
    """What makes the run's batches."""
    data = spec.recipe.cad
    return CadCollator(
        pad=spec.cad.pad,
        slots=slots_of(spec.recipe),
        image_size=image_size_of(spec.recipe),
        mean=data.mean,
        std=data.std,
    )


def score(model: nn.Module, spec: RunSpec, split: SplitName, device: torch.device) -> dict[str, Any]:
    """loss (nats a token), perplexity, token_accuracy, tokens (targets) and models of a split. Collective.

    Every model is seen by all inputs of the mix: `inputs` has loss and token_accuracy of each, of which those of the
    whole are the means by share, as training has them. Raises Stopped.
    """
    models = Models(spec.recipe.cad, spec.cad, split)
    shares = spec.recipe.cad.shares
    found = [_score(model, spec, models, number, device) for number in range(len(shares))]
    each = {
        share.inputs.name: {"loss": total / tokens, "token_accuracy": right / tokens}
        for share, (total, tokens, right) in zip(shares, found, strict=True)
    }
    loss = _mean(shares, each, "loss")
    return {
        "loss": loss,
        "perplexity": math.exp(min(loss, 700.0)),
        "token_accuracy": _mean(shares, each, "token_accuracy"),
        "tokens": int(found[0][1]),
        "models": len(models),
        "inputs": each,
    }


def _mean(shares: tuple[Share, ...], each: Mapping[str, Mapping[str, float]], figure: str) -> float:
    return sum(one.share * each[one.inputs.name][figure] for one in shares)


def _score(model: nn.Module, spec: RunSpec, models: Models, share: int, device: torch.device) -> list[float]:
    """Sum of losses, targets, and targets that are predicted right, over the models as one share sees them."""
    data, micro = spec.recipe.cad, spec.batches.evaluate_micro
    views = data.views_of_evaluations
    lengths = models.sizes(slots_of(spec.recipe)).of(data.shares[share].inputs, len(views))
    order = CadEvalOrder(lengths, share, views, micro, dist.get_rank(), dist.get_world_size())
    sums = torch.zeros(3, dtype=torch.float64, device=device)
    with torch.no_grad():  # not inference_mode: fully_shard's hooks need version counters
        for number, batch in enumerate(evaluation_batches(models, order, collator(spec)), 1):
            PULSE.leave_if_asked(f"evaluation, batch {number}")
            outputs = model(**{name: value.to(device) for name, value in batch.items()})
            sums += torch.stack([outputs[name].double() for name in ("total", "targets", "right")])
    dist.all_reduce(sums)
    assert sums[1] > 0, "each sample has targets"
    return sums.tolist()
