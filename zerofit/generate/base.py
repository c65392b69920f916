"""What both engines are made of and look at first."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch

from zerofit.config.grpo import Sampling
from zerofit.generate.completion import Completion
from zerofit.generate.mode import check_room

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class Batched(ABC):
    """A `generator.Generator` that completes prompts in batches."""

    def __init__(self, device: torch.device, pad: int, stops: Sequence[int], batch: int | None) -> None:
        self.device, self.pad, self.stops, self.batch = device, pad, frozenset(stops), batch

    def __call__(
        self,
        model: PreTrainedModel,
        prompts: Sequence[Sequence[int]],
        seeds: Sequence[int],
        sampling: Sampling,
        progress: Callable[[int], None] | None = None,
    ) -> list[Completion]:
        """As `Generator` promises."""
        assert len(prompts) == len(seeds)
        if not prompts:
            return []
        check_room(model, [len(prompt) for prompt in prompts], sampling.max_tokens)
        return self.complete(model, prompts, seeds, sampling, progress)

    @abstractmethod
    def complete(
        self,
        model: PreTrainedModel,
        prompts: Sequence[Sequence[int]],
        seeds: Sequence[int],
        sampling: Sampling,
        progress: Callable[[int], None] | None,
    ) -> list[Completion]:
        """The completions of at least one prompt, all of which fit."""
