"""Prompts of generations: each as often as it is to be completed, the same on any number of ranks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch.utils.data import Dataset, Sampler

from zerofit.data.loader import Loader
from zerofit.data.order import permutation
from zerofit.data.samples import Prompts
from zerofit.plan.seeds import seed_of
from zerofit.plan.spec import Batches, GrpoSizes


class PromptKey(NamedTuple):
    """One completion that is to be made: `copy` tells those of a prompt apart."""

    prompt: int
    epoch: int
    copy: int


class PromptOrder(Sampler[list[PromptKey]]):
    """This rank's completions of a generation, given again for each micro-batch that training makes of them.

    Optimizer step k of an epoch takes the prompts perm[k*P : (k+1)*P], P = global batch / completions of a prompt, a
    generation after another. All completions of a generation stand in one list, those of a prompt side by side, of
    which each rank has an equal part: as TRL's trainer takes them.
    """

    def __init__(self, prompts: int, batches: Batches, sizes: GrpoSizes, seed: int, rank: int) -> None:
        self.prompts, self.batches, self.sizes, self.seed, self.rank = prompts, batches, sizes, seed, rank
        self.epoch, self.step = 0, 0

    def seek(self, epoch: int, step_in_epoch: int = 0) -> None:
        """Make the next iteration begin before this optimizer step of this epoch. `len` is of what remains of it."""
        assert 0 <= step_in_epoch < self.batches.steps_per_epoch
        self.epoch, self.step = epoch, step_in_epoch

    def __len__(self) -> int:
        return (self.batches.steps_per_epoch - self.step) * self.batches.accumulation

    def __iter__(self) -> Iterator[list[PromptKey]]:
        epoch, first, sizes = self.epoch, self.step, self.sizes
        order = permutation(self.prompts, self.seed, epoch).tolist()
        mine = sizes.completions // self.batches.ranks
        for step in range(first, self.batches.steps_per_epoch):
            for generation in range(sizes.generations_per_step):
                start = (step * sizes.generations_per_step + generation) * sizes.prompts
                copies = range(sizes.num_generations)
                rows = [PromptKey(one, epoch, copy) for one in order[start : start + sizes.prompts] for copy in copies]
                part = rows[self.rank * mine : (self.rank + 1) * mine]
                for _ in range(sizes.steps_per_generation * sizes.num_iterations):
                    yield part


class _Rows(Dataset[dict[str, Any]]):
    """What TRL's trainer is given of a completion that is to be made."""

    def __init__(self, prompts: Prompts, seed: int) -> None:
        self.prompts, self.seed = prompts, seed

    def __len__(self) -> int:
        return len(self.prompts)

    def __getitem__(self, key: PromptKey) -> dict[str, Any]:
        prompt = self.prompts[key.prompt]
        return {
            "prompt": prompt.where,  # a name: rollouts are made of `tokens`
            "tokens": prompt.tokens.tolist(),
            "row": prompt.row,
            "where": prompt.where,
            "seed": seed_of(self.seed, f"{key.epoch} {key.prompt} {key.copy}"),
        }


def prompt_loader(prompts: Prompts, order: PromptOrder, seed: int) -> Loader:
    """Lists of rows: tokens, row, where, seed; each time it is iterated from where the order stands."""
    assert order.prompts == len(prompts)
    return Loader(
        _Rows(prompts, seed),
        batch_sampler=order,
        collate_fn=list,
        generator=torch.Generator(),  # of seeds that nobody uses; without it each iteration would advance torch's own
    )
