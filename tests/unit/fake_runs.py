"""Small runs to be played on tensors without memory, and the same on real ones."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import torch
from plan_examples import CPU, FACTS, TEXT_FACTS, gpus
from torch import nn

from zerofit.config.schema import Recipe
from zerofit.models.build import build_model
from zerofit.models.placement import WholePlacement
from zerofit.plan.build import make_plan
from zerofit.plan.spec import ImageFacts, RunSpec, TextFacts
from zerofit.predict.autocast import like_cuda
from zerofit.predict.ledger import Ledger
from zerofit.predict.playing import Played, _steps, play
from zerofit.predict.watch import Watch
from zerofit.train.engine import DTYPES

BLOCKS = {"hidden_size": 128, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 256}
VIT = {"kind": "vit", "shape": BLOCKS, "patch_size": 4}
DECODER = {
    "model_type": "qwen3",
    "hidden_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "intermediate_size": 128,
    "vocab_size": 40_000,
    "max_position_embeddings": 4096,
}
PATCHES = {"kind": "patch_lm", "shape": DECODER, "patch_size": 4, "image_size": 16}
TEXT = {"kind": "causal_lm", "shape": DECODER, "tokenizer": "bytes"}
LORA = {"rank": 4}


def images(model: dict[str, Any], ranks: int = 1, micro: int = 4, accumulation: int = 1, **sections: Any) -> RunSpec:
    """A run of the task classify on GPUs."""
    batch = {"micro_batch": micro, "global_batch": micro * ranks * accumulation, "max_steps": 3}
    fields = {
        "model": {"image_size": 16} | model,
        "data": {"source": "digits"},
        "train": batch,
        "optimizer": {"lr": 1e-3},
        "strategy": {"name": "single", "precision": "bf16"},
    }
    return planned(fields | sections, FACTS.model_copy(update={"image_size": 16}), ranks)


def text(model: dict[str, Any] = TEXT, longest: int = 40, average: int = 30, rows: int = 2, **sections: Any) -> RunSpec:
    """A run on text on a GPU: samples of `average` tokens, the longest of `longest`, half of them learnt."""
    facts = TEXT_FACTS.model_copy(
        update={"longest": longest, "train": 100, "rows": 100, "tokens": 100 * average, "targets": 50 * average}
    )
    fields = {
        "task": "sft",
        "model": model,
        "data": {"source": "rows", "path": "rows", "max_length": longest},
        "train": {"micro_batch": rows, "global_batch": rows, "max_steps": 3},
        "optimizer": {"lr": 1e-3},
        "strategy": {"name": "single", "precision": "bf16"},
    }
    return planned(fields | sections, facts, 1)


def planned(fields: dict[str, Any], facts: ImageFacts | TextFacts, ranks: int) -> RunSpec:
    """The plan of a recipe for GPUs."""
    recipe = Recipe.model_validate(fields)
    return make_plan(recipe, facts=facts, hardware=gpus(ranks), ranks=ranks, run_dir=Path("run"))


class Seen:
    """Every operation, by name."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def begin(self, model: Any) -> None:
        """What it is of does not matter."""

    def op(self, func: Any, args: Any, outputs: Any, phase: str) -> None:
        self.names.append(func.name())


def seen(spec: RunSpec) -> set[str]:
    """Names of the operations of a played run, without their name space."""
    observer = Seen()
    play(spec, [observer])
    return {name.partition("::")[2] for name in observer.names}


def activations(played: Played) -> dict[str, int]:
    """Bytes at the fullest moments of forward and backward, besides weights, optimizer and cuBLAS's workspace."""
    peaks = played.books.device.peaks
    found = {}
    for phase in ("forward", "backward"):
        split = dict(peaks[phase].split)
        for kind in ("weights", "optimizer", "other"):
            split.pop(kind, None)
        found[phase] = sum(split.values())
    return found


def trained_for_real(spec: RunSpec) -> tuple[nn.Module, Any, Any, Any]:
    """The run's model with values, on the CPU; its steps, a batch, and how its engine calls the model."""
    compute = DTYPES[spec.precision]
    real = spec.model_copy(update={"hardware": CPU})
    model = build_model(real, WholePlacement(torch.device("cpu"), torch.float32), compute).train()
    steps = _steps(spec.recipe.task)(spec)
    steps.prepare(model)
    batch = steps.batch(spec.batches.micro, training=True)
    return model, steps, batch, partial(_called, model, compute)


def counted_for_real(spec: RunSpec) -> dict[str, int]:
    """The same as `activations` of a forward and backward pass that is computed."""
    ledger = Ledger("forward")
    model, steps, batch, forward = trained_for_real(spec)
    with like_cuda(), Watch(ledger, model):
        loss = steps.loss(forward, batch)
        ledger.enter("backward")
        loss.backward()
    return {phase: ledger.peaks[phase].total for phase in ("forward", "backward")}


def _called(model: nn.Module, compute: torch.dtype, *arguments: Any, **options: Any) -> Any:
    with torch.autocast("cpu", compute, enabled=compute != torch.float32):
        return model(*arguments, **options)
