"""A run's optimizer step, played through on tensors without memory: what is on the device when, and on the host."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
from zerofit.predict.replays import REPLAYS
from zerofit.predict.steps import Forward, Steps
from zerofit.predict.watch import Observer, Watch

MICRO_STEPS = 2
"""Micro-steps at most: in the second gradients are there already, and in a third nothing is new."""
STEPS = {
    "classify": "zerofit.predict.image_steps:ImageSteps",
    "probe": "zerofit.predict.image_steps:ImageSteps",
    "sft": "zerofit.predict.text_steps:TextSteps",
    "grpo": "zerofit.predict.text_steps:CompletionSteps",
    "cad": "zerofit.predict.cad_steps:CadSteps",
}
"""By task; imported when it is needed, for TRL takes seconds."""


def play(spec: RunSpec, observers: Sequence[Observer] = ()) -> Books:
    """Play a step and an evaluation of `spec`; its model has a shape (`plan/published.py`). Raises UserError.

    `observers` see every operation of it.
    """
    books = Books(Ledger(), Ledger())
    replay, mode = REPLAYS[spec.strategy.name](spec, books), KnowingMode()
    model = fake_model(spec, replay.held(), mode)
    steps = _steps(spec.recipe.task)(spec)
    training = steps.batch(spec.batches.micro, training=True)
    evaluation = steps.batch(spec.batches.evaluate_micro, training=False) if evaluates(spec) else None
    model.train()
    with pretending(mode, spec.hardware.capability), steps.on_gpu():
        steps.prepare(model)
        for observer in observers:
            observer.begin(model)
        watch = Watch(books.device, model, steps.logits, observers)
        forward = partial(_called, replay, model)
        enter(books, "init")
        replay.attach(model)
        with watch:
            for _ in range(replay.steps):
                _train(spec, books, replay, steps, forward, lambda: watch.taken(without_memory(training, mode)))
            if evaluation is not None:
                enter(books, "evaluation")
                model.eval()
                with torch.no_grad():
                    steps.evaluate(forward, watch.taken(without_memory(evaluation, mode)))
    return books


def evaluates(spec: RunSpec) -> bool:
    """Whether the run's model is evaluated at any time."""
    evaluate = spec.recipe.evaluate
    return spec.batches.evaluate_steps is not None or evaluate.at_start or evaluate.at_end


def enter(books: Books, phase: Phase) -> None:
    """Go on into the next phase."""
    books.device.enter(phase)
    books.host.enter(phase)


def _train(
    spec: RunSpec, books: Books, replay: Replay, steps: Steps, forward: Forward, batch: Callable[[], Batch]
) -> None:
    micro_steps = min(spec.batches.accumulation, MICRO_STEPS)
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


def _called(replay: Replay, model: TrainedModel, *arguments: Any, **options: Any) -> Any:
    with replay.computing():
        return model(*arguments, **options)


def _steps(task: str) -> type[Steps]:
    module, _, name = STEPS[task].partition(":")
    kind: type[Steps] = getattr(import_module(module), name)
    return kind
