"""The engine hf: transformers' own `generate`, with tokens drawn as in every engine.

`generate` is told to be greedy, and its scores are those of the token that was drawn: so it has no say in the drawing,
and touches no random state.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence, Sized
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


CHECK = 16
"""Tokens after which it is asked how many rows are finished: the answer waits for the device."""


class Drawing(LogitsProcessor):
    """Makes of each row's logits those of the token that is drawn, and keeps it with its log-probability."""

    def __init__(
        self, uniform: Tensor, width: int, sampling: Sampling, stops: Collection[int], tell: Callable[[int], None]
    ) -> None:
        self.uniform, self.width, self.sampling, self.tell = uniform, width, sampling, tell
        self.stops = torch.tensor(sorted(stops), dtype=torch.int64, device=uniform.device)
        self.tokens = torch.zeros_like(uniform, dtype=torch.int64)
        self.logprobs = torch.zeros_like(uniform, dtype=torch.float32)
        self.drawn = 0

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        step = input_ids.shape[1] - self.width
        self.tokens[:, step], self.logprobs[:, step] = draw(scores, self.uniform[:, step], self.sampling)
        self.drawn = step + 1
        if self.drawn % CHECK == 0:
            self.tell(int(torch.isin(self.tokens[:, : self.drawn], self.stops).any(dim=1).sum()))
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
        with evaluating(model), defaults(model, settings(sampling, self.pad, self.stops)):
            for rows in batches_of([len(prompt) for prompt in prompts], self.batch):
                padded = pad_left([prompts[row] for row in rows], self.pad, len(rows), self.device)
                drawing = Drawing(
                    numbers[rows].to(self.device), padded.tokens.shape[1], sampling, self.stops, beside(found, progress)
                )
                decode(model, {"input_ids": padded.tokens, "attention_mask": padded.mask}, drawing)
                found.update(zip(rows, drawn(drawing, self.stops), strict=True))
                if progress is not None:
                    progress(len(found))
        return [found[row] for row in range(len(prompts))]


def settings(sampling: Sampling, pad: int, stops: Collection[int]) -> GenerationConfig:
    """What `generate` is told: to be greedy, among scores that are those of the drawn token."""
    return GenerationConfig(
        max_new_tokens=sampling.max_tokens,
        do_sample=False,
        pad_token_id=pad,
        eos_token_id=sorted(stops) or None,
        use_cache=True,
    )


def decode(model: PreTrainedModel, prompts: Mapping[str, Tensor], *processors: LogitsProcessor) -> None:
    """Decode a batch under `defaults`. The last of the processors draws: what is drawn is to be found there."""
    model.generate(  # type: ignore[operator]  # a mixin that the declared type lacks
        **prompts,
        generation_config=model.generation_config,
        logits_processor=LogitsProcessorList(processors),
        synced_gpus=False,  # else ranks agree after every token, though none needs the others
    )


def drawn(drawing: Drawing, stops: Collection[int]) -> list[Completion]:
    """A completion of each row. Raises UserError where logits are not finite."""
    return collect(drawing.tokens[:, : drawing.drawn], drawing.logprobs[:, : drawing.drawn], stops)


def beside(found: Sized, progress: Callable[[int], None] | None) -> Callable[[int], None]:
    """Progress of a batch, which comes after what is `found` already."""
    before = len(found)
    return lambda done: None if progress is None else progress(before + done)


@contextmanager
def defaults(model: PreTrainedModel, config: GenerationConfig) -> Iterator[None]:
    """`generate` fills up what is not given from the model's own settings, penalties among them: it finds these."""
    own = model.generation_config
    model.generation_config = config
    try:
        yield
    finally:
        model.generation_config = own
