"""One rank's share of an evaluation: completions of its parts of the problems, judged; rank 0 puts all together.

A part is made in one call, with the same neighbours on whatever rank and after whatever interruption, so the rows are
the same, too. Ranks meet at the beginning and at the end alone: a rank that is done waits while the others write parts.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist

from zerofit.config.errors import UserError
from zerofit.evaluate.loading import load_model, load_run
from zerofit.evaluate.merging import merge
from zerofit.evaluate.parts import Part, Parts, Prompt, read_prompts
from zerofit.evaluate.prompts import tokenizer_for
from zerofit.evaluate.request import Request, Settings, read_request
from zerofit.evaluate.room import fitting_batch
from zerofit.evaluate.seeds import seed_of
from zerofit.evaluate.stopping import LeftUndone, Stop
from zerofit.evaluate.watching import Watching
from zerofit.generate.completion import Completion
from zerofit.generate.generator import Generator, make_generator
from zerofit.measure.rollouts import Rollout
from zerofit.plan.files import read_spec
from zerofit.tasks.built_in_rewards import MathCorrect
from zerofit.train.engine import DTYPES
from zerofit.train.pulse import PULSE

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

WAIT = 0.2
"""Seconds between two looks at what the other ranks have written."""


def evaluate(directory: Path) -> None:
    """Make the parts that are missing, then the result. Collective. Raises Stopped, and UserError."""
    request = read_request(directory)
    parts = Parts(directory, request.count, request.per_part, request.settings.digest())
    stop = Stop(parts.directory)
    left = _missing(parts, stop)
    rank, ranks = dist.get_rank(), dist.get_world_size()
    watching = Watching(parts, request.settings.samples, shown=rank == 0)
    if left:
        with suppress(LeftUndone):
            _make(request, directory, parts, left[rank::ranks], stop, watching)
    while len(parts.done()) < len(parts.problems) and not stop.asked("waiting for the other ranks"):
        watching.look()
        time.sleep(WAIT)
    watching.look()
    watching.close()
    PULSE.leave_if_asked("the end of the evaluation")
    if rank == 0:
        merge(directory, request, parts)
    dist.barrier()


def _missing(parts: Parts, stop: Stop) -> list[int]:
    """As rank 0 finds them. Collective."""
    found: list[list[int]] = [[]]
    if dist.get_rank() == 0:
        found = [parts.take_stock()]
        stop.clear()
    dist.broadcast_object_list(found, src=0)
    return found[0]


def _make(request: Request, directory: Path, parts: Parts, mine: list[int], stop: Stop, watching: Watching) -> None:
    """Write the parts `mine`, until a rank is asked to stop. Raises LeftUndone."""
    settings = request.settings
    device = _device(request)
    prompts = read_prompts(directory)
    tokenizer = tokenizer_for(settings.model)
    model = _load(settings, device)
    # Of all prompts, not of this rank's: the same batches on every rank.
    longest = max(len(prompt.tokens) for prompt in prompts) + settings.sampling.max_tokens
    batch = request.batch or fitting_batch(model, device, longest, request.per_part * settings.samples)
    generate = make_generator(settings.engine, device, settings.pad, settings.stops, batch)
    for number in mine:
        if stop.asked(f"part {number}"):
            return
        started = time.monotonic()
        asked = [(index, sample) for index in parts.problems[number] for sample in range(settings.samples)]

        def tell(done: int, number: int = number) -> None:
            stop.wait_no_longer(f"part {number}, {done} completions")
            watching.made(done)

        completions = _complete(generate, model, settings, prompts, asked, batch, tell)
        rows = [
            _judged(prompts[index], completion, tokenizer, settings)
            for (index, _), completion in zip(asked, completions, strict=True)
        ]
        parts.write(number, Part(rows, time.monotonic() - started, dist.get_world_size()))
        watching.look()


def _device(request: Request) -> torch.device:
    """That the launcher chose for this rank."""
    if request.hardware.device == "cpu":
        return torch.device("cpu")
    return torch.device("cuda", torch.cuda.current_device())


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
    tell: Callable[[int], None],
) -> list[Completion]:
    """A completion for each (problem, sample). Raises UserError where `batch` at once are too many."""
    tokens = [prompts[index].tokens for index, _ in asked]
    seeds = [seed_of(settings.seed, index, sample) for index, sample in asked]
    try:
        return generate(model, tokens, seeds, settings.sampling, tell)
    except UserError as error:
        raise UserError(str(error).replace("grpo.rollout.engine", "--engine hf")) from None
    except torch.cuda.OutOfMemoryError:
        raise UserError(
            f"{batch} completions at once do not fit into the GPU's memory: use --batch {max(1, batch // 2)}; what is "
            "done is kept"
        ) from None


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
