"""Ways to break LARS in a run that is prepared and not yet trained, to show that the tests would notice."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any
from unittest.mock import patch

import torch
import torch.distributed as dist

from zerofit.models.trainable import param_groups
from zerofit.train import lars, trainer
from zerofit.train.callbacks import Ready

POISON = 3.0


def no_all_reduce(_: Any) -> AbstractContextManager[Any]:
    """Each rank takes the norms of its own shard."""
    return patch.object(lars, "sum_over_ranks", lambda squares, group: None)


def no_mask(_: Any) -> AbstractContextManager[Any]:
    """Padding counts."""
    return patch.object(lars, "real_elements", lambda numel, shard, rank: shard)


@contextmanager
def poison(run: Any) -> Iterator[None]:
    """What pads the shards of DeepSpeed's float32 weights is not 0 but POISON."""
    run.add_callback(Ready(lambda: poison_padding(run.model_wrapped.optimizer)))
    yield


@torch.no_grad()
def poison_padding(zero: Any) -> None:
    """Fill the padding of every group. Collective; fails where no rank has any."""
    if type(zero).__name__ == "DeepSpeedZeroOptimizer_Stage3":
        sizes = [sum(parameter.ds_numel for parameter in group) for group in zero.fp16_groups]
        shards = zero.fp32_partitioned_groups_flat
    else:
        sizes = [sum(parameter.numel() for parameter in group) for group in zero.bit16_groups]
        shards = zero.single_partition_of_fp32_groups
    filled = 0
    for numel, shard in zip(sizes, shards, strict=True):
        padding = shard[max(0, numel - dist.get_rank() * shard.numel()) :]
        padding.fill_(POISON)
        filled += padding.numel()
    everywhere = torch.tensor(filled)
    dist.all_reduce(everywhere)
    assert everywhere > 0, "nothing is padded, so this shows nothing"


def another_optimizer(_: Any) -> AbstractContextManager[Any]:
    """AdamW, whatever the recipe says."""
    return patch.object(trainer, "make_optimizer", lambda model, spec, engine: adamw(model, spec))


def adamw(model: Any, spec: Any) -> torch.optim.Optimizer:
    return torch.optim.AdamW(param_groups(model, spec), lr=spec.lr)


MUTATIONS: dict[str, Callable[[Any], AbstractContextManager[Any]]] = {
    "no_all_reduce": no_all_reduce,
    "no_mask": no_mask,
    "poison": poison,
    "another_optimizer": another_optimizer,
}
