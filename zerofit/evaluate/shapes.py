"""One rank's share of an evaluation on CAD models: command texts of its parts of them, judged.

As of a language model (evaluate/reasoning.py) a part is made in one call with the same neighbours whatever the ranks.
A part has some CAD models, each with all that is told of it in turn: so what is true is made a solid of once.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from zerofit.cad.kernel import Kernel
from zerofit.config.cad import COMBINATIONS
from zerofit.data.cad_solids import MOST
from zerofit.evaluate.loading import load_cad
from zerofit.evaluate.parts import Parts
from zerofit.evaluate.room import device_of, fitting, fitting_batch
from zerofit.evaluate.seeds import seed_of
from zerofit.evaluate.shape_judging import Judged, Written, judge
from zerofit.evaluate.shape_merging import merge
from zerofit.evaluate.shape_prompts import Prompts
from zerofit.evaluate.shape_request import MODELS, MODELS_FILE, ShapeRequest, read_request, spec_of
from zerofit.evaluate.sharing import Make, Tell, share
from zerofit.evaluate.watching import Shown
from zerofit.generate.commands import CommandTokens
from zerofit.generate.completion import Completion
from zerofit.generate.conditioned import ConditionedGenerator
from zerofit.measure.shapes import SHAPES, ShapeRow
from zerofit.train.engine import DTYPES

ROWS = 128
"""Texts at once on a rank, at most, unless more are asked for: images and clouds are encoded together."""


def evaluate(directory: Path) -> None:
    """Make the parts that are missing, then the result. Collective. Raises Stopped, and UserError."""
    request = read_request(directory)
    parts = Parts(SHAPES, directory, request.count, request.per_part, request.settings.digest())
    share(
        parts,
        Shown("shapes", len(request.settings.mixes), "valid", lambda row: row.valid),
        lambda: _at_work(request, directory, parts),
        lambda: merge(directory, request, parts),
    )


@contextmanager
def _at_work(request: ShapeRequest, directory: Path, parts: Parts[ShapeRow]) -> Iterator[Make[ShapeRow]]:
    """What makes a part. Collective."""
    settings = request.settings
    spec, device = spec_of(request), device_of(request)
    prompts, models = Prompts(spec, request.split), MODELS.read(directory / MODELS_FILE)
    model = load_cad(spec, settings.model.weights, device, DTYPES[settings.dtype])
    longest = prompts.longest(settings.mixes) + settings.sampling.max_tokens
    most = min(ROWS, request.per_part * len(settings.mixes))
    batch = request.batch or fitting_batch(model.language, device, longest, most)
    stops, held = spec.cad.stops, None
    if settings.constrained:
        held = CommandTokens(prompts.tokenizer, stops, model.language.config.vocab_size, device)
    generate = ConditionedGenerator(device, prompts.collate, stops, batch, held)
    workers = max(1, min(MOST, len(os.sched_getaffinity(0)) // request.ranks))

    def written(mix: str, completion: Completion) -> Written:
        tokens = [token for token in completion.tokens if token not in stops]
        said = str(prompts.tokenizer.decode(tokens, skip_special_tokens=True))
        return Written(mix, said, len(completion.tokens), completion.stopped)

    with Kernel(workers=workers) as kernel:

        def make(number: int, tell: Tell) -> list[ShapeRow]:
            numbers = parts.problems[number]
            asked = [(index, mix) for index in numbers for mix in settings.mixes]
            told = [prompts.prompt(index, mix) for index, mix in asked]
            seeds = [seed_of(settings.seed, index, COMBINATIONS.index(mix)) for index, mix in asked]
            with fitting(batch):  # a text is half of a shape, what it is worth the other half
                made = generate(model, told, seeds, settings.sampling, lambda done: tell(done // 2))
            texts = [written(mix, one) for (_, mix), one in zip(asked, made, strict=True)]
            each = len(settings.mixes)
            items = [
                Judged(models[index], texts[place * each : (place + 1) * each], index < settings.pictures)
                for place, index in enumerate(numbers)
            ]
            return list(judge(kernel, items, lambda done: tell((len(asked) + done * each) // 2)))

        yield make
