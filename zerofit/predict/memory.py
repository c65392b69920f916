"""`predict_memory`: how much of a device's memory a run will take at its fullest moment, and what for."""

from __future__ import annotations

from collections.abc import Iterator

from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException

from zerofit.config.errors import UserError
from zerofit.plan.hardware import GIB
from zerofit.plan.prediction import Memory
from zerofit.plan.spec import RunSpec
from zerofit.predict.playing import play
from zerofit.predict.rollouts import modelled
from zerofit.predict.shaped import shaped

PROCESS_GIB = 2.4
"""Host memory of a rank's process with CUDA's context and libraries, GiB: `host_rss_gib` of runs on H200s whose engines
keep nothing there (docs/performance.jsonl: 2.30 to 2.44 with torch 2.11)."""


class NotPlayed(UserError):
    """The model decides on values: what it allocates is known in a run alone."""


def predict_memory(spec: RunSpec) -> Memory:
    """Of the rank that needs most. Raises UserError as `build_model` does, and where the model cannot be played."""
    try:
        played = play(shaped(spec))
    except (DataDependentOutputException, DynamicOutputShapeException) as error:
        raise NotPlayed(
            f"memory: what the {spec.recipe.model.kind} allocates depends on values that are there in a run alone "
            f"({error.func}), as in a mixture of experts; an estimate by formulas is what can be had"
        ) from None
    books = played.books
    phase, moment = books.device.fullest
    _, host = books.host.fullest
    return Memory(
        peak_gib=_gib(moment.total),
        phase=phase,
        split={kind: _gib(size) for kind, size in moment.split.items()},
        phases={name: _gib(found.total) for name, found in books.device.peaks.items()},
        host_gib=round(spec.batches.ranks * (PROCESS_GIB + host.total / GIB), 4),
        exact=True,
        not_modelled=(*_left_out(spec), *played.not_modelled),
    )


def _left_out(spec: RunSpec) -> Iterator[str]:
    if spec.strategy.compile:
        yield "torch.compile, with which less is kept for backward"
    if spec.recipe.model.attention == "flash":
        yield "the package flash-attn: PyTorch's own kernels are counted"
    if not modelled(spec):
        yield "completions of a model whose sizes no formula knows"
    elif spec.grpo is not None:
        yield "rollouts in detail: they are counted by formulas, within 15 %"


def _gib(size: int) -> float:
    return round(size / GIB, 4)
