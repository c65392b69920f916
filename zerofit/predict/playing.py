"""A run's optimizer step, played through on tensors without memory: what is on the device when, and on the host."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from importlib import import_module
from typing import Any

import torch
from transformers.initialization import no_init_weights

from zerofit.models.build import outlined
from zerofit.models.trained import TrainedModel
from zerofit.plan.spec import RunSpec
from zerofit.predict.fake import fake_model, pretending
from zerofit.predict.ledger import Ledger, Phase
from zerofit.predict.replay import Books, Replay
from zerofit.predict.replays import REPLAYS
from zerofit.predict.steps import Steps
from zerofit.predict.watch import Observer, Watch
from zerofit.train.engine import DTYPES

MICRO_STEPS = 2
"""Micro-steps at most: in the second gradients are there already, and in a third nothing is new."""
STEPS = {
    "classify": "zerofit.predict.image_steps:ImageSteps",
    "probe": "zerofit.predict.image_steps:ImageSteps",
}
"""By task; imported when it is needed, for TRL takes seconds."""


def play(spec: RunSpec, observers: Sequence[Observer] = ()) -> Books:
    """Play a step and an evaluation of `spec`; its model has a shape (`plan/published.py`). Raises UserError.

    `observers` see the operations of one micro-step, forward and backward.
    """
    compute = DTYPES[spec.precision]
    with no_init_weights():
        outline = outlined(spec, None, compute)
    books = Books(Ledger(), Ledger())
    replay = REPLAYS[spec.strategy.name](spec, books)
    with pretending(spec.hardware.capability) as mode:
        steps = _steps(spec.recipe.task)(spec, mode)
        model = fake_model(outline, spec, replay.held(), compute)
        model.train()
        steps.prepare(model)
        watch = Watch(books.device, model, steps.logits, observers)
        enter(books, "init")
        replay.attach(model)
        with watch, replay.playing():
            for _ in range(replay.steps):
                _train(spec, books, replay, model, steps, watch)
            if evaluates(spec):
                enter(books, "evaluation")
                _evaluate(spec, replay, model, steps, watch)
    return books


def evaluates(spec: RunSpec) -> bool:
    """Whether the run's model is evaluated at any time."""
    evaluate = spec.recipe.evaluate
    return spec.batches.evaluate_steps is not None or evaluate.at_start or evaluate.at_end


def enter(books: Books, phase: Phase) -> None:
    """Go on into the next phase."""
    books.device.enter(phase)
    books.host.enter(phase)


def _train(spec: RunSpec, books: Books, replay: Replay, model: TrainedModel, steps: Steps, watch: Watch) -> None:
    micro_steps = min(spec.batches.accumulation, MICRO_STEPS)
    for number in range(1, micro_steps + 1):
        enter(books, "forward")
        replay.begin_micro_step(last=number == micro_steps)
        with watch.booking("other"):
            batch = steps.batch(spec.batches.micro, training=True)
            for tensor in batch.values():
                watch.book(tensor)
        loss = steps.loss(partial(_called, replay, model), batch)
        del batch
        enter(books, "backward")
        loss.backward()
        del loss
        replay.micro_step_done()
    enter(books, "step")
    replay.step()


def _evaluate(spec: RunSpec, replay: Replay, model: TrainedModel, steps: Steps, watch: Watch) -> None:
    model.eval()
    with watch.booking("other"):
        batch = steps.batch(spec.batches.evaluate_micro, training=False)
    with torch.no_grad():
        steps.evaluate(partial(_called, replay, model), batch)


def _called(replay: Replay, model: TrainedModel, *arguments: Any, **options: Any) -> Any:
    with replay.computing():
        return model(*arguments, **options)


def _steps(task: str) -> type[Steps]:
    module, _, name = STEPS[task].partition(":")
    kind: type[Steps] = getattr(import_module(module), name)
    return kind
