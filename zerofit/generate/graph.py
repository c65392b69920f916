"""The engine graph: a cache of fixed size, and a decoding step that is captured once and replayed for every token.

One token of a batch takes a GPU less time than Python takes to launch its kernels; a CUDA graph launches them at once.
Batches of a call share the cache and the graphs; both are dropped at its end.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from transformers.cache_utils import StaticCache, StaticLayer, StaticSlidingWindowLayer

from zerofit.config.errors import UserError
from zerofit.config.grpo import Sampling
from zerofit.generate.base import Batched
from zerofit.generate.batches import batches_of, pad_left
from zerofit.generate.cache import Place, fixed_cache
from zerofit.generate.collect import collect
from zerofit.generate.completion import Completion
from zerofit.generate.mode import evaluating
from zerofit.generate.sampling import uniforms
from zerofit.generate.step import Decoding, runner_on

if TYPE_CHECKING:
    from transformers import PreTrainedModel

BUCKET = 512
"""A step looks at a multiple of so many columns: each takes a graph of its own."""
ALIGNED = 16
"""Columns of a cache are a multiple of this: kernels would else copy a mask for every layer."""
CHECK = 16
"""Steps after which it is asked whether all rows are finished: the answer waits for the device."""


class GraphGenerator(Batched):
    """`generator.Generator` by a decoding loop of our own."""

    def complete(
        self,
        model: PreTrainedModel,
        prompts: Sequence[Sequence[int]],
        seeds: Sequence[int],
        sampling: Sampling,
        progress: Callable[[int], None] | None,
    ) -> list[Completion]:
        layers = check_decodable(model)
        batches = batches_of([len(prompt) for prompt in prompts], self.batch)
        rows = max(map(len, batches))
        place = Place(rows, multiple(ALIGNED, max(map(len, prompts)) + sampling.max_tokens), self.device)
        numbers = uniforms(seeds, sampling.max_tokens)
        found: dict[int, Completion] = {}
        with evaluating(model), masked_attention(model):
            decoding = Decoding(model, fixed_cache(place, layers), place, sampling, self.pad, list(self.stops))
            run = runner_on(self.device, decoding.step)
            for batch in batches:
                padded = pad_left([prompts[row] for row in batch], self.pad, rows, self.device)
                decoding.begin(padded, numbers[batch].to(self.device))
                width = padded.tokens.shape[1]
                done = 1
                while done < sampling.max_tokens:
                    run(columns(width + done, place.columns))
                    done += 1
                    if done % CHECK == 0:
                        finished = int(decoding.finished[: len(batch)].sum())
                        if progress is not None:
                            progress(len(found) + finished)
                        if finished == len(batch):
                            break
                made = decoding.tokens[: len(batch), :done], decoding.logprobs[: len(batch), :done]
                found.update(zip(batch, collect(*made, self.stops), strict=True))
                if progress is not None:
                    progress(len(found))
        return [found[row] for row in range(len(prompts))]


def columns(needed: int, room: int) -> int:
    """How many columns a step looks at that needs `needed` of them."""
    return min(multiple(BUCKET, needed), room)


def multiple(of: int, least: int) -> int:
    """The first multiple of `of` that is no less than `least`."""
    return -(-least // of) * of


def check_decodable(model: PreTrainedModel) -> int:
    """Number of the model's layers. Raises UserError unless each is attention, and a step can be captured."""
    layers = StaticCache(config=model.config, max_cache_len=1).layers
    other = {type(layer).__name__ for layer in layers} - {StaticLayer.__name__, StaticSlidingWindowLayer.__name__}
    taken = inspect.signature(type(model).forward).parameters
    if other:
        why = f"its layers keep more than keys and values ({', '.join(sorted(other))})"
    elif not model._can_compile_fullgraph:
        why = "transformers does not give it a static cache"
    elif "position_ids" not in taken or "logits_to_keep" not in taken:
        why = "it cannot be told where in a padded row a token stands"
    else:
        return len(layers)
    raise UserError(
        f"the engine graph cannot decode {type(model).__name__}: {why}; take the engine hf (grpo.rollout.engine)"
    )


@contextmanager
def masked_attention(model: PreTrainedModel) -> Iterator[None]:
    """Attention that takes a mask: flash kernels would look at the columns that are still empty."""
    own = model.config._attn_implementation
    if own in ("eager", "sdpa"):
        yield
        return
    model.set_attn_implementation("sdpa")
    try:
        yield
    finally:
        model.set_attn_implementation(own)
