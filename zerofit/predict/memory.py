"""`predict_memory`: how much of a device's memory a run will take at its fullest moment, and what for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from zerofit.plan.hardware import GIB
from zerofit.plan.host_memory import PROCESS
from zerofit.plan.prediction import Memory, Unpredicted
from zerofit.plan.shaped import shaped
from zerofit.plan.spec import RunSpec
from zerofit.predict.playing import play_ranks
from zerofit.predict.rollouts import modelled
from zerofit.predict.watch import Observer

BY_FORMULA = ("rollout", "evaluation")
"""Phases of rewards whose peaks are not played through."""


def predict_memory(spec: RunSpec, observers: Sequence[Observer] = ()) -> Memory:
    """Of the rank that needs most. Raises UserError as `build_model` does, and Unpredicted.

    That is raised where a model's shape is not at hand, and where it decides on values that are there in a run alone.
    """
    try:
        played = max(play_ranks(playable(spec), observers), key=lambda one: one.books.device.fullest[1].total)
    except RuntimeError as error:  # of fake tensors; DataDependentOutputException is one
        said = " ".join(str(error).split())[:200]
        raise Unpredicted(f"a step cannot be played through on tensors without values: {said}") from error
    books = played.books
    phase, moment = books.device.fullest
    _, host = books.host.fullest
    return Memory(
        peak_gib=_gib(moment.total),
        phase=phase,
        split={kind: _gib(size) for kind, size in moment.split.items()},
        phases={name: _gib(found.total) for name, found in books.device.peaks.items()},
        host_gib=round(spec.batches.ranks * (PROCESS + host.total / GIB), 4),
        exact=spec.grpo is None or phase not in BY_FORMULA,
        not_modelled=(*_left_out(spec), *played.not_modelled),
    )


def playable(spec: RunSpec) -> RunSpec:
    """The same run of fresh weights, without compilation, and with an attention that torch itself has."""
    known = shaped(spec)
    model = known.recipe.model
    attention = "auto" if model.attention == "flash" else model.attention
    recipe = known.recipe.model_copy(update={"model": model.model_copy(update={"attention": attention})})
    strategy = known.strategy.model_copy(update={"compile": False})
    return known.model_copy(update={"recipe": recipe, "strategy": strategy})


def _left_out(spec: RunSpec) -> Iterator[str]:
    if spec.strategy.compile:
        yield "torch.compile, with which less is kept for backward"
    if spec.recipe.model.attention == "flash":
        yield "the package flash-attn: PyTorch's own kernels are counted"
    if not modelled(spec):
        yield "completions, and a reference, of a model whose sizes no formula knows"
    elif spec.grpo is not None:
        yield "rollouts in detail: they are counted by formulas, within 15 %"


def _gib(size: int) -> float:
    return round(size / GIB, 6)
