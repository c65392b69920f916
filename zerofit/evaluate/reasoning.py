"""One rank's share of an evaluation: completions of its parts of the problems, judged; rank 0 puts all together.

A part is made in one call, with the same neighbours on whatever rank and after whatever interruption, so the rows are
the same, too. Ranks meet at the beginning and at the end alone: a rank that is done waits while the others write parts.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from zerofit.config.errors import UserError
from zerofit.evaluate.loading import load_model, load_run
from zerofit.evaluate.merging import merge
from zerofit.evaluate.parts import Parts, Prompt, read_prompts
from zerofit.evaluate.prompts import tokenizer_for
from zerofit.evaluate.request import Request, Settings, read_request
from zerofit.evaluate.room import device_of, fitting, fitting_batch
from zerofit.evaluate.seeds import seed_of
from zerofit.evaluate.sharing import Make, Tell, share
from zerofit.evaluate.watching import Shown
from zerofit.generate.completion import Completion
from zerofit.generate.generator import Generator, make_generator
from zerofit.measure.rollouts import ROLLOUTS, Rollout
from zerofit.plan.files import read_spec
from zerofit.tasks.built_in_rewards import MathCorrect
from zerofit.train.engine import DTYPES

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def evaluate(directory: Path) -> None:
    """Make the parts that are missing, then the result. Collective. Raises Stopped, and UserError."""
    request = read_request(directory)
    parts = Parts(ROLLOUTS, directory, request.count, request.per_part, request.settings.digest())
    share(
        parts,
        Shown("completions", request.settings.samples, "pass@1", lambda row: row.correct),
        lambda: _at_work(request, directory, parts),
        lambda: merge(directory, request, parts),
    )


@contextmanager
def _at_work(request: Request, directory: Path, parts: Parts[Rollout]) -> Iterator[Make[Rollout]]:
    """What makes a part. Collective."""
    settings = request.settings
    device = device_of(request)
    prompts = read_prompts(directory)
    tokenizer = tokenizer_for(settings.model)
    model = _load(settings, device)
    # Of all prompts, not of this rank's: the same batches on every rank.
    longest = max(len(prompt.tokens) for prompt in prompts) + settings.sampling.max_tokens
    batch = request.batch or fitting_batch(model, device, longest, request.per_part * settings.samples)
    generate = make_generator(settings.engine, device, settings.pad, settings.stops, batch)

    def make(number: int, tell: Tell) -> list[Rollout]:
        asked = [(index, sample) for index in parts.problems[number] for sample in range(settings.samples)]
        completions = _complete(generate, model, settings, prompts, asked, batch, tell)
        return [
            _judged(prompts[index], completion, tokenizer, settings)
            for (index, _), completion in zip(asked, completions, strict=True)
        ]

    yield make


def _load(settings: Settings, device: torch.device) -> PreTrainedModel:
    model, dtype = settings.model, DTYPES[settings.dtype]
    if model.run is None:
        return load_model(model.weights, device, dtype, settings.quantize)
    return load_run(read_spec(model.run), model.weights, device, dtype)


def _complete(
    generate: Generator,
    model: PreTrainedModel,
    settings: Settings,
    prompts: list[Prompt],
    asked: list[tuple[int, int]],
    batch: int,
    tell: Tell,
) -> list[Completion]:
    """A completion for each (problem, sample). Raises UserError where `batch` at once are too many."""
    tokens = [prompts[index].tokens for index, _ in asked]
    seeds = [seed_of(settings.seed, index, sample) for index, sample in asked]
    with fitting(batch):
        try:
            return generate(model, tokens, seeds, settings.sampling, tell)
        except UserError as error:
            raise UserError(str(error).replace("grpo.rollout.engine", "--engine hf")) from None


def _judged(prompt: Prompt, completion: Completion, tokenizer: PreTrainedTokenizerBase, settings: Settings) -> Rollout:
    tokens = [token for token in completion.tokens if token not in settings.stops]
    text = str(tokenizer.decode(tokens, skip_special_tokens=True))
    verdict = MathCorrect().judge(text, {"answer": prompt.gold})
    return Rollout(
        problem=prompt.problem,
        prompt=prompt.text,
        completion=text,
        gold=prompt.gold,
        answer=None if verdict is None else verdict.answer,
        correct=verdict is not None and verdict.correct,
        tokens=len(completion.tokens),
        stopped=completion.stopped,
    )
