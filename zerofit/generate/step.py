"""Decoding one batch: the tensors that it keeps, and the step that is captured or run as it is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from transformers.cache_utils import Cache

from zerofit.config.errors import UserError
from zerofit.config.grpo import Sampling
from zerofit.generate.batches import Padded
from zerofit.generate.cache import Place
from zerofit.generate.sampling import draw

if TYPE_CHECKING:
    from transformers import PreTrainedModel

PREFILL = 4096
"""Tokens of prompts that are read at once."""


class Decoding:
    """The state of a batch on its device. A step reads and writes these tensors alone, in place."""

    def __init__(
        self, model: PreTrainedModel, cache: Cache, place: Place, sampling: Sampling, pad: int, stops: Sequence[int]
    ) -> None:
        self.model, self.cache, self.place, self.sampling, self.pad = model, cache, place, sampling, pad
        rows, device = place.rows, place.device
        self.stops = torch.tensor(sorted(stops), dtype=torch.int64, device=device)
        self.mask = torch.zeros(rows, place.columns, dtype=torch.int64, device=device)
        self.token = torch.zeros(rows, 1, dtype=torch.int64, device=device)
        self.position = torch.zeros(rows, 1, dtype=torch.int64, device=device)
        self.finished = torch.zeros(rows, dtype=torch.bool, device=device)
        self.drawn = torch.zeros(1, dtype=torch.int64, device=device)
        self.uniform = torch.zeros(rows, sampling.max_tokens, dtype=torch.float64, device=device)
        self.tokens = torch.zeros(rows, sampling.max_tokens, dtype=torch.int64, device=device)
        self.logprobs = torch.zeros(rows, sampling.max_tokens, dtype=torch.float32, device=device)

    def begin(self, prompts: Padded, uniform: Tensor) -> None:
        """Read the prompts and draw the first tokens; rows beyond those of `uniform` are finished already."""
        width = prompts.tokens.shape[1]
        self.mask.zero_()
        self.mask[:, :width] = prompts.mask
        self.uniform[: len(uniform)] = uniform
        self.finished.zero_()
        self.finished[len(uniform) :] = True
        self.drawn.zero_()
        logits = self._read(prompts)
        self.place.cursor.fill_(width)
        self.position.copy_(prompts.positions[:, -1:] + 1)
        self._take(logits)

    def step(self, visible: int) -> None:
        """Draw the next token of every row. Of the cache, the first `visible` columns are looked at."""
        self.place.visible = visible
        logits = self._forward(self.token, self.mask[:, :visible], self.position)
        self.place.cursor.add_(1)
        self.position.add_(1)
        self._take(logits)

    def _read(self, prompts: Padded) -> Tensor:
        width = prompts.tokens.shape[1]
        self.place.visible = width
        self.place.cursor.zero_()
        self.place.target = torch.arange(width, device=self.place.device)
        some = max(1, PREFILL // width)
        last = []
        for start in range(0, self.place.rows, some):
            chosen = self.place.chosen = slice(start, start + some)
            last.append(self._forward(prompts.tokens[chosen], prompts.mask[chosen], prompts.positions[chosen]))
        self.place.chosen, self.place.target = slice(None), self.place.cursor
        return torch.cat(last)

    def _forward(self, tokens: Tensor, mask: Tensor, positions: Tensor) -> Tensor:
        """Logits after the last of the tokens, [rows, vocabulary]."""
        logits: Tensor = self.model(
            input_ids=tokens,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits
        return logits[:, -1]

    def _take(self, logits: Tensor) -> None:
        """Draw from the logits, write down, and make the tokens the next step's."""
        uniform = self.uniform.index_select(1, self.drawn)[:, 0]
        tokens, logprobs = draw(logits, uniform, self.sampling)
        self.tokens.index_copy_(1, self.drawn, tokens[:, None])
        self.logprobs.index_copy_(1, self.drawn, logprobs[:, None])
        self.drawn.add_(1)
        self.token.copy_(tokens.masked_fill(self.finished, self.pad)[:, None])
        self.finished.logical_or_((tokens[:, None] == self.stops).any(dim=1))
        self.mask.index_fill_(1, self.place.cursor, 1)


Runner = Callable[[int], None]
"""Runs a step, given the number of columns that it looks at."""


@cache
def _capturing(device: torch.device) -> torch.cuda.Stream:
    """The stream that steps are captured on, one for the life of the process.

    cuBLAS keeps a workspace for each stream that it was called on (32 MiB on Hopper, until the process ends), and a
    new stream for each rollout would take as much with each of them.
    """
    return torch.cuda.Stream(device)


class Captured:
    """Runs a step on a GPU: the first time for each number of columns as it is, from the second on as a CUDA graph."""

    def __init__(self, step: Runner, device: torch.device) -> None:
        self.step, self.device = step, device
        self.stream = _capturing(device)
        self.pool = torch.cuda.graph_pool_handle()  # one for all: no two graphs run at once
        self.warm: set[int] = set()
        self.graphs: dict[int, torch.cuda.CUDAGraph] = {}

    def __call__(self, visible: int) -> None:
        if visible not in self.warm:
            self._warm_up(visible)
            return
        if visible not in self.graphs:
            self.graphs[visible] = self._capture(visible)
        self.graphs[visible].replay()

    def _warm_up(self, visible: int) -> None:
        # On the stream that captures: libraries set up what they need for each stream.
        self.stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(self.stream):
            self.step(visible)
        torch.cuda.current_stream(self.device).wait_stream(self.stream)
        self.warm.add(visible)

    def _capture(self, visible: int) -> torch.cuda.CUDAGraph:
        """A graph of the step. Captured, a step is not done. Raises UserError where it cannot be captured."""
        graph = torch.cuda.CUDAGraph()
        try:
            # thread_local: what NCCL's watchdog or a loader's thread does meanwhile is no part of it.
            with torch.cuda.graph(graph, pool=self.pool, stream=self.stream, capture_error_mode="thread_local"):
                self.step(visible)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            raise UserError(
                f"this model's decoding cannot be captured as a CUDA graph ({str(error).splitlines()[0]}); "
                "take the engine hf (grpo.rollout.engine)"
            ) from error
        return graph


def runner_on(device: torch.device, step: Runner) -> Runner:
    """How steps are run on a device: captured on a GPU, as they are on a CPU."""
    return Captured(step, device) if device.type == "cuda" else step
