"""A run's optimizer step, played through on tensors without memory: what is on the device when, and on the host."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import Any

import torch

from zerofit.models.trained import TrainedModel
from zerofit.plan.spec import RunSpec
from zerofit.predict.batches import Batch
from zerofit.predict.fake import fake_model, pretending
from zerofit.predict.known import KnowingMode, without_memory
from zerofit.predict.ledger import Ledger, Phase
from zerofit.predict.replay import Books, Replay
from zerofit.predict.replays import EXTRACTING, REPLAYS
from zerofit.predict.rollouts import play_judging, play_rollout, reference
from zerofit.predict.steps import Forward, Steps
from zerofit.predict.watch import Observer, Watch
from zerofit.predict.workspaces import multiplying

SHARED = ("fsdp2", "zero3", "zeropp")
"""Strategies whose ranks hold shares of the weights."""
STEPS = {
    "classify": "zerofit.predict.image_steps:ImageSteps",
    "probe": "zerofit.predict.image_steps:ImageSteps",
    "sft": "zerofit.predict.text_steps:TextSteps",
    "grpo": "zerofit.predict.text_steps:CompletionSteps",
    "cad": "zerofit.predict.cad_steps:CadSteps",
}
"""By task; imported when it is needed, for TRL takes seconds."""


@dataclass(frozen=True)
class Played:
    """What came of it."""

    books: Books
    not_modelled: tuple[str, ...]
    """What the engine does that its replay does not."""
    rival: int | None
    """Another rank that may need more."""


def play_ranks(spec: RunSpec, observers: Sequence[Observer] = ()) -> list[Played]:
    """As `play`: of the last rank, and of another one that may need more, which `observers` do not see."""
    last = play(spec, observers)
    return [last] if last.rival is None else [last, play(spec, rank=last.rival)]


def play(spec: RunSpec, observers: Sequence[Observer] = (), rank: int | None = None) -> Played:
    """Play what a run does over and over: a rollout, a step, an evaluation. `spec` is a `shaped` one.

    An evaluation of batches that are no larger than those of training is left out: it needs less than their forward
    pass. `observers` see every operation on tensors. `rank`: by default the last.
    Raises UserError as `build_model` does, and what fake tensors raise where a model decides on values.
    """
    books = Books(Ledger(), Ledger())
    extracting = extracts(spec)
    replay, mode = (EXTRACTING if extracting else REPLAYS)[spec.strategy.name](spec, books), KnowingMode()
    replay.rank = replay.rank if rank is None else rank
    model = fake_model(spec, replay.held(), mode)
    steps = _steps(spec.recipe.task)(spec)
    training = steps.batch(spec.batches.micro, training=True)
    evaluation = steps.batch(spec.batches.evaluate_micro, training=False) if extracting or _larger(spec) else None
    model.train()
    with pretending(mode, spec.hardware.capability), steps.on_gpu():
        steps.prepare(model)
        for observer in observers:
            observer.begin(model)
        watch = Watch(books.device, model, steps.logits, observers)
        forward = partial(_called, replay, model)

        def training_batch() -> Batch:
            return watch.taken(without_memory(training, mode))

        enter(books, "init")
        books.device.open("other", multiplying(spec.hardware.capability))
        replay.attach(model)
        books.device.open("weights", reference(spec))
        with watch, replay.playing():
            if not extracting:
                for step in range(replay.steps):
                    if spec.grpo is not None:
                        enter(books, "rollout")
                        play_rollout(spec, books.device)
                    micro_steps = min(spec.batches.accumulation, replay.micro_steps) if step == replay.steps - 1 else 1
                    _train(books, replay, steps, forward, training_batch, micro_steps)
            if spec.grpo is not None and evaluates(spec):
                enter(books, "evaluation")
                play_judging(spec, books.device)
            if evaluation is not None:
                enter(books, "evaluation")
                model.eval()
                with torch.no_grad():
                    steps.evaluate(forward, watch.taken(without_memory(evaluation, mode)))
        if not extracting:
            enter(books, "save")
            books.device.open("gathered", _gathered_to_save(spec, model)).close()
    return Played(books, replay.not_modelled, replay.rival)


def extracts(spec: RunSpec) -> bool:
    """Whether the run's backbone computes features once, and nothing is trained around it."""
    return spec.recipe.probe is not None and spec.recipe.probe.features == "cached"


def evaluates(spec: RunSpec) -> bool:
    """Whether the run's model is evaluated at any time."""
    evaluate = spec.recipe.evaluate
    return spec.batches.evaluate_steps is not None or evaluate.at_start or evaluate.at_end


def _larger(spec: RunSpec) -> bool:
    """Whether it is evaluated in batches that are larger than those of training."""
    return evaluates(spec) and spec.grpo is None and spec.batches.evaluate_micro > spec.batches.micro


def enter(books: Books, phase: Phase) -> None:
    """Go on into the next phase."""
    books.device.enter(phase)
    books.host.enter(phase)


def _train(
    books: Books, replay: Replay, steps: Steps, forward: Forward, batch: Callable[[], Batch], micro_steps: int
) -> None:
    for number in range(1, micro_steps + 1):
        enter(books, "forward")
        replay.begin_micro_step(last=number == micro_steps)
        loss = steps.loss(forward, batch())
        enter(books, "backward")
        loss.backward()
        del loss
        replay.micro_step_done()
    enter(books, "step")
    replay.step()


def _gathered_to_save(spec: RunSpec, model: TrainedModel) -> int:
    """Bytes of the largest weight, as it is held: whole weights are gathered one by one where ranks hold shares."""
    if spec.strategy.name not in SHARED:
        return 0
    float32 = spec.strategy.name == "fsdp2"
    return max(parameter.numel() * (4 if float32 else parameter.itemsize) for parameter in model.parameters())


def _called(replay: Replay, model: TrainedModel, *arguments: Any, **options: Any) -> Any:
    with replay.computing():
        return model(*arguments, **options)


def _steps(task: str) -> type[Steps]:
    module, _, name = STEPS[task].partition(":")
    kind: type[Steps] = getattr(import_module(module), name)
    return kind
