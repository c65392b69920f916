"""The engine hf: transformers' own `generate`, with tokens drawn as in every engine.

`generate` is told to be greedy, and its scores are those of the token that was drawn: so it has no say in the drawing,
and touches no random state.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList

from zerofit.config.grpo import Sampling
from zerofit.generate.base import Batched
from zerofit.generate.batches import batches_of, pad_left
from zerofit.generate.collect import collect
from zerofit.generate.completion import Completion
from zerofit.generate.mode import evaluating
from zerofit.generate.sampling import draw, uniforms

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class Drawing(LogitsProcessor):
    """Makes of each row's logits those of the token that is drawn, and keeps it with its log-probability."""

    def __init__(self, uniform: Tensor, width: int, sampling: Sampling) -> None:
        self.uniform, self.width, self.sampling = uniform, width, sampling
        self.tokens = torch.zeros_like(uniform, dtype=torch.int64)
        self.logprobs = torch.zeros_like(uniform, dtype=torch.float32)
        self.drawn = 0

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        step = input_ids.shape[1] - self.width
        self.tokens[:, step], self.logprobs[:, step] = draw(scores, self.uniform[:, step], self.sampling)
        self.drawn = step + 1
        return torch.zeros_like(scores).scatter_(1, self.tokens[:, step, None], 1.0)


class HfGenerator(Batched):
    """`generator.Generator` by transformers' `generate`, with a cache that grows."""

    def complete(
        self,
        model: PreTrainedModel,
        prompts: Sequence[Sequence[int]],
        seeds: Sequence[int],
        sampling: Sampling,
        progress: Callable[[int], None] | None,
    ) -> list[Completion]:
        found: dict[int, Completion] = {}
        numbers = uniforms(seeds, sampling.max_tokens)
        config = GenerationConfig(
            max_new_tokens=sampling.max_tokens,
            do_sample=False,
            pad_token_id=self.pad,
            eos_token_id=sorted(self.stops) or None,
            use_cache=True,
        )
        with evaluating(model), defaults(model, config):
            for rows in batches_of([len(prompt) for prompt in prompts], self.batch):
                padded = pad_left([prompts[row] for row in rows], self.pad, len(rows), self.device)
                drawing = Drawing(numbers[rows].to(self.device), padded.tokens.shape[1], sampling)
                model.generate(  # type: ignore[operator]  # a mixin that the declared type lacks
                    input_ids=padded.tokens,
                    attention_mask=padded.mask,
                    generation_config=config,
                    logits_processor=LogitsProcessorList([drawing]),
                    synced_gpus=False,  # else ranks agree after every token, though none needs the others
                )
                made = drawing.tokens[:, : drawing.drawn], drawing.logprobs[:, : drawing.drawn]
                found.update(zip(rows, collect(*made, self.stops), strict=True))
                if progress is not None:
                    progress(len(found))
        return [found[row] for row in range(len(prompts))]


@contextmanager
def defaults(model: PreTrainedModel, config: GenerationConfig) -> Iterator[None]:
    """`generate` fills up what is not given from the model's own settings, penalties among them: it finds these."""
    own = model.generation_config
    model.generation_config = config
    try:
        yield
    finally:
        model.generation_config = own
