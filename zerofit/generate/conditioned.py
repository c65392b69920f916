"""Completions of prompts whose tokens may be of point clouds and images: command texts of CAD models."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from zerofit.config.grpo import Sampling
from zerofit.data.cad_loader import Batch, CadCollator, CadSample
from zerofit.generate.batches import batches_of
from zerofit.generate.commands import CommandTokens, Constrained
from zerofit.generate.completion import Completion
from zerofit.generate.hf import Drawing, beside, decode, defaults, drawn, settings
from zerofit.generate.mode import check_room, evaluating
from zerofit.generate.sampling import uniforms
from zerofit.models.cad_mllm import CadMllm


@dataclass(frozen=True)
class ConditionedGenerator:
    """Completes what a CAD-MLLM is shown; as `generator.Generator`, a completion does not depend on its batch."""

    device: torch.device
    collate: CadCollator
    stops: tuple[int, ...]
    batch: int | None = None
    """Rows that are decoded at once, at most."""
    tokens: CommandTokens | None = None
    """Holds completions to the grammar; null: they are free."""

    def __call__(
        self,
        model: CadMllm,
        prompts: Sequence[CadSample],
        seeds: Sequence[int],
        sampling: Sampling,
        progress: Callable[[int], None] | None = None,
    ) -> list[Completion]:
        """A completion of each prompt, whose commands are not looked at; `seeds` has one for each.

        `progress` is called with the number of completions that are done. Raises UserError where a prompt leaves too
        little of the context.
        """
        assert len(prompts) == len(seeds)
        if not prompts:
            return []
        lengths = [self.collate.prompt_length(prompt) for prompt in prompts]
        check_room(model.language, lengths, sampling.max_tokens)
        numbers = uniforms(seeds, sampling.max_tokens)
        found: dict[int, Completion] = {}
        with evaluating(model), defaults(model.language, settings(sampling, self.collate.pad, self.stops)):
            for rows in batches_of(lengths, self.batch):
                given = self._embedded(model, [prompts[row] for row in rows])
                tell = beside(found, progress)
                drawing = Drawing(numbers[rows].to(self.device), 0, sampling, self.stops, tell)  # prompts do not return
                held = [] if self.tokens is None else [Constrained(self.tokens, len(rows))]
                decode(model.language, given, *held, drawing)
                found.update(zip(rows, drawn(drawing, self.stops), strict=True))
                if progress is not None:
                    progress(len(found))
        return [found[row] for row in range(len(prompts))]

    def _embedded(self, model: CadMllm, prompts: Sequence[CadSample]) -> dict[str, Tensor]:
        batch = on_the_left(self.collate([replace(prompt, commands=NOTHING) for prompt in prompts]))
        seen = {name: value.to(self.device) for name, value in batch.items() if name != "labels"}
        mask = seen.pop("attention_mask")
        return {"inputs_embeds": model.embed(**seen), "attention_mask": mask}


NOTHING = np.zeros(0, dtype=np.int32)
ROWS = ("input_ids", "labels", "attention_mask", "slots")


def on_the_left(batch: Batch) -> Batch:
    """A batch that is filled up on the right, filled up on the left: each row ends where its completion begins."""
    order = batch["attention_mask"].argsort(dim=1, stable=True)
    return {**batch, **{name: batch[name].gather(1, order) for name in ROWS}}
