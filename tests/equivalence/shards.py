"""One rank that steps LARS over flat shards whose padding is not a number, and over the whole layers beside them.

    python shards.py LOGS    # as many ranks as one likes, under `run_ranks`

Layers have 1 to 9 elements: on three ranks, of those with 1, 2 and 4 nothing is left for the last rank.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from ranks import be_rank
from torch import Tensor

from zerofit.launch.environment import World
from zerofit.train.lars import Lars, real_elements

LIMIT = 300.0  # seconds


def compare(world: World) -> None:
    """Fails where a shard is not what the whole layer says."""
    torch.manual_seed(0)  # every rank has the same whole layers
    whole = [torch.randn(1, numel).requires_grad_() for numel in range(1, 10)]
    shards = [shard_of(layer, world) for layer in whole]
    alone, together = lars(whole, whole, flat_sharded=False), lars(shards, whole, flat_sharded=True)
    for _ in range(3):
        for layer, shard in zip(whole, shards, strict=True):
            layer.grad = torch.randn_like(layer)
            shard.grad = shard_of(layer.grad, world)
        alone.step()
        together.step()
    for layer, shard in zip(whole, shards, strict=True):
        real = real_elements(layer.numel(), shard.numel(), world.rank)
        torch.testing.assert_close(shard[:real], shard_of(layer, world)[:real])
        assert shard[real:].isnan().all()


def lars(held: list[Tensor], whole: list[Tensor], flat_sharded: bool) -> Lars:
    groups = [
        {"params": [part], "adapt": True, "numel": layer.numel(), "weight_decay": 0.1}
        for part, layer in zip(held, whole, strict=True)
    ]
    device = torch.device("cpu")
    return Lars(groups, lr=0.1, momentum=0.9, trust_coefficient=0.1, flat_sharded=flat_sharded, device=device)


def shard_of(whole: Tensor, world: World) -> Tensor:
    """This rank's flat shard, with NaN where it ends later than the whole."""
    size = -(-whole.numel() // world.size)
    padded = torch.full((world.size * size,), torch.nan)
    padded[: whole.numel()] = whole.detach().flatten()
    return padded[world.rank * size :][:size].clone().requires_grad_()


if __name__ == "__main__":
    be_rank(Path(sys.argv[1]), compare, limit=LIMIT)
