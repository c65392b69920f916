"""What ZeRO++ quantises on the way: weights whose shares DeepSpeed's kernels take, no adapters, and no others."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch.distributed as dist

from zerofit.train.zero import gather_as_int8


@pytest.mark.parametrize(
    ("world", "sizes", "adapters", "calls"),
    [
        (2, (1280 * 1280, 1280), (), [((0, 1), True)]),
        (4, (101 * 1280,), (), [((0,), True)]),  # 32,320 elements a rank
        (2, (10 * 1280, 10), (), [((0,), True), ((1,), False)]),  # a head with its bias: 5 elements a rank
        (8, (101 * 100,), (), [((0,), False)]),
        (9, (64,), (), [((0,), False)]),  # 8 elements a rank, of which the last has padding alone
        (2, (1280 * 1280, 16 * 1280, 640, 16 * 1280), (1, 3), [((0, 2), True), ((1, 3), False)]),
        (2, (16 * 1280,), (0,), [((0,), False)]),
        (2, (), (), [((), False)]),
    ],
)
def test_even_shares_of_no_adapter_travel_as_int8(
    monkeypatch: pytest.MonkeyPatch,
    world: int,
    sizes: tuple[int, ...],
    adapters: tuple[int, ...],
    calls: list[tuple[tuple[int, ...], bool]],
) -> None:
    monkeypatch.setattr(dist, "get_world_size", lambda: world)
    asked: list[tuple[tuple[int, ...], bool]] = []
    waited: list[int] = []

    def gather(some: list[Any], safe_mode: bool, quantize: bool) -> Any:
        assert safe_mode
        asked.append((tuple(one.number for one in some), quantize))
        mine = len(asked)
        return SimpleNamespace(wait=lambda handle_dependency: waited.append(mine))

    weights = [SimpleNamespace(ds_numel=size, number=number) for number, size in enumerate(sizes)]
    those = {id(weights[number]) for number in adapters}
    gather_as_int8(gather, those, iter(weights), safe_mode=True, quantize=True).wait(handle_dependency=True)
    assert asked == calls
    assert waited == list(range(1, len(calls) + 1))
    gather_as_int8(gather, those, iter(weights), safe_mode=True)
    assert asked[len(calls) :] == [(tuple(range(len(sizes))), False)]
