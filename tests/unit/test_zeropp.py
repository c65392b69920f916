"""What ZeRO++ quantises on the way: weights whose shares DeepSpeed's kernels take, and no others."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch.distributed as dist

from zerofit.train.zero import gather_as_int8


@pytest.mark.parametrize(
    ("world", "sizes", "quantised"),
    [
        (2, (1280 * 1280, 1280), True),
        (4, (101 * 1280,), True),  # 32,320 elements a rank
        (2, (10 * 1280, 10), False),  # a head with its bias, in one collective: 6,405 elements a rank
        (8, (101 * 100,), False),
        (9, (64,), False),  # 8 elements a rank, of which the last has padding alone
    ],
)
def test_even_shares_alone_travel_as_int8(
    monkeypatch: pytest.MonkeyPatch, world: int, sizes: tuple[int, ...], quantised: bool
) -> None:
    monkeypatch.setattr(dist, "get_world_size", lambda: world)
    asked: list[tuple[int, bool]] = []

    def gather(weights: list[Any], safe_mode: bool, quantize: bool) -> None:
        asked.append((len(weights), quantize))

    weights = [SimpleNamespace(ds_numel=size) for size in sizes]
    gather_as_int8(gather, iter(weights), quantize=True)
    gather_as_int8(gather, iter(weights), quantize=False)
    assert asked == [(len(sizes), quantised), (len(sizes), False)]
