"""A CAD model made of what is told of it: texts are written until one makes a valid solid."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from zerofit.cad import text
from zerofit.cad.errors import CadError
from zerofit.cad.kernel import Invalid, Kernel, Solid
from zerofit.cad.quantise import dequantise
from zerofit.cad.shape import Shape
from zerofit.config.grpo import Sampling
from zerofit.data.cad_loader import CadSample
from zerofit.data.cad_tokens import CadTokens
from zerofit.data.cad_views import Pixels
from zerofit.data.tokenizer import load_tokenizer
from zerofit.evaluate.asked import WARM
from zerofit.evaluate.loading import load_cad
from zerofit.evaluate.seeds import seed_of
from zerofit.evaluate.shape_prompts import tokens_of_a_text
from zerofit.generate.commands import CommandTokens
from zerofit.generate.conditioned import NOTHING, ConditionedGenerator
from zerofit.plan.spec import RunSpec
from zerofit.tasks.commands import collator
from zerofit.train.engine import DTYPES


@dataclass(frozen=True)
class Told:
    """What is told of the CAD model."""

    caption: str | None
    cloud: NDArray[np.float32] | None
    images: tuple[Pixels, ...]
    """Each try sees all of them."""


@dataclass(frozen=True)
class How:
    """How texts are written."""

    seed: int
    temperature: float | None
    """null: the likeliest text first, then at WARM."""
    constrained: bool
    """Hold them to the grammar."""
    max_tokens: int | None
    """null: as many as the longest training sample has, or what the context leaves."""


@dataclass(frozen=True)
class Try:
    """A text, and what comes of it."""

    text: str
    shape: Shape | None
    solid: Solid | Invalid


class Writer:
    """A run's checkpoint at work on one device."""

    def __init__(self, spec: RunSpec, checkpoint: Path, device: torch.device, how: How) -> None:
        self.how, self.tokenizer, self.stops = how, load_tokenizer(spec.recipe), spec.cad.stops
        self.usual = spec.cad.longest
        self.model = load_cad(spec, checkpoint, device, DTYPES[spec.precision])
        held = None
        if how.constrained:
            held = CommandTokens(self.tokenizer, self.stops, self.model.language.config.vocab_size, device)
        self.generate = ConditionedGenerator(device, collator(spec), self.stops, None, held)

    def tries(self, told: Told, most: int, kernel: Kernel) -> Iterator[Try]:
        """One after the other. Raises UserError where what is told leaves too little of the model's context."""
        tokens = CadTokens(self.tokenizer)
        prompt = np.array(tokens.bare if told.caption is None else tokens.prompts([told.caption])[0], dtype=np.int32)
        sample = CadSample(prompt, NOTHING, told.cloud, told.images)
        length = self.generate.collate.prompt_length(sample)
        context: int | None = self.model.language.config.get_text_config().to_dict().get("max_position_embeddings")
        length = tokens_of_a_text(self.how.max_tokens, self.usual, length, context)
        for number in range(most):
            likeliest = 0.0 if number == 0 else WARM
            temperature = likeliest if self.how.temperature is None else self.how.temperature
            sampling = Sampling(temperature=temperature, max_tokens=length)
            made = self.generate(self.model, [sample], [seed_of(self.how.seed, 0, number)], sampling)[0]
            said = str(self.tokenizer.decode([token for token in made.tokens if token not in self.stops]))
            yield _tried(said, kernel)


def _tried(said: str, kernel: Kernel) -> Try:
    try:
        shape = dequantise(text.read(said))
    except CadError as error:
        return Try(said, None, Invalid(str(error)))
    return Try(said, shape, kernel.measure(shape))
