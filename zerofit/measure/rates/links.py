"""How fast ranks exchange, by the size of what they exchange."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from zerofit.measure.rates.products import significant
from zerofit.measure.rates.stopwatch import row
from zerofit.plan.calibration import Message

MIB = 2**20
GIGA = 1e9
T = TypeVar("T")


def messages(sizes: Iterable[float], device: torch.device, budget: float) -> tuple[Message, ...]:
    """Of buffers of so many MiB of float32, rising, in about `budget` seconds each. Collective.

    The bus bandwidths of NCCL's own tests (nccl-tests, PERFORMANCE.md): what each rank sends, over the slowest rank's
    time.
    """
    ranks, found = dist.get_world_size(), []
    share = (ranks - 1) / ranks
    for mib in sorted(sizes):
        elements = max(1, int(mib * MIB / 4 / ranks)) * ranks
        whole = torch.ones(elements, device=device)
        part = torch.ones(elements // ranks, device=device)
        sent = share * elements * 4
        reduce = _slowest(lambda whole=whole: dist.all_reduce(whole), device, budget)  # type: ignore[misc]
        gather = _slowest(lambda whole=whole, part=part: dist.all_gather_into_tensor(whole, part), device, budget)  # type: ignore[misc]
        scatter = _slowest(lambda whole=whole, part=part: dist.reduce_scatter_tensor(part, whole), device, budget)  # type: ignore[misc]
        found.append(
            Message(
                mib=mib,
                all_reduce=significant(2 * sent / reduce / GIGA),
                all_gather=significant(sent / gather / GIGA),
                reduce_scatter=significant(sent / scatter / GIGA),
            )
        )
        del whole, part
    return tuple(found)


def everyone(value: T) -> list[T]:
    """Each rank's. Collective."""
    found: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(found, value)
    return found


def _slowest(work: Callable[[], object], device: torch.device, budget: float) -> float:
    """Seconds of a call on the slowest rank; as many calls on every rank."""
    work()
    probe = torch.tensor([row(work, device, 3) / 3], device=device)
    dist.all_reduce(probe, dist.ReduceOp.MAX)
    calls = max(3, min(1000, int(budget / max(float(probe), 1e-7))))
    taken = torch.tensor([row(work, device, calls) / calls], device=device)
    dist.all_reduce(taken, dist.ReduceOp.MAX)
    return max(1e-9, float(taken))
