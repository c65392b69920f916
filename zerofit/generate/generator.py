"""What a generator is, and which there are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal, Protocol

import torch

from zerofit.config.grpo import Sampling
from zerofit.generate.completion import Completion

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class Generator(Protocol):
    """Completes prompts.

    A completion is a function of the weights, its prompt, its seed and `sampling` alone, whatever stands beside it in
    a batch (as far as floating point lets it): no random state but the seeds' own is used or touched.
    """

    def __call__(
        self,
        model: PreTrainedModel,
        prompts: Sequence[Sequence[int]],
        seeds: Sequence[int],
        sampling: Sampling,
        progress: Callable[[int], None] | None = None,
    ) -> list[Completion]:
        """A completion of each prompt, in their order; `seeds` has one for each.

        `model` is any causal language model whose weights lie whole on this device; it is left in the mode in which it
        was found. `progress` is called with the number of completions that are done. Raises UserError where a prompt
        leaves too little of the context.
        """


def make_generator(
    engine: Literal["graph", "hf"], device: torch.device, pad: int, stops: Sequence[int], batch: int | None
) -> Generator:
    """The engine of that name. `pad` fills rows up, `stops` end them, `batch` rows at most are decoded at once."""
    from zerofit.generate.graph import GraphGenerator
    from zerofit.generate.hf import HfGenerator

    kinds: dict[str, Callable[[torch.device, int, Sequence[int], int | None], Generator]]
    kinds = {"graph": GraphGenerator, "hf": HfGenerator}
    return kinds[engine](device, pad, stops, batch)
