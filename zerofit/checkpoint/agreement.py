"""Ranks tell each other how their part of a save went, by way of the rendezvous store: no collective, so none hangs."""

from __future__ import annotations

import itertools
import time
from datetime import timedelta

import torch.distributed as dist
from torch.distributed.distributed_c10d import _get_default_store

LIMIT = timedelta(hours=1)
"""How long a rank waits for the slowest: for large shards on a slow drive, and for their hashes."""
_SLEEP = (0.005, 0.5)  # seconds between two looks: the first, and the longest
_numbers = itertools.count()  # ranks make their agreements in the same order


class Unanswered(RuntimeError):
    """Ranks have not said how it went: dead, held by a drive, or waiting in a collective for one that failed."""


class Agreement:
    """Rounds in which every rank hears of every other's failure. `rank` of `size`; raises Unanswered after `limit`."""

    def __init__(self, store: dist.Store, rank: int, size: int, limit: timedelta = LIMIT) -> None:
        self.store, self.rank, self.size, self.limit = store, rank, size, limit
        self._round = 0

    @classmethod
    def of_group(cls, limit: timedelta = LIMIT) -> Agreement:
        """Of the default process group; to be made by every rank, in the same order."""
        store = dist.PrefixStore(f"zerofit/agreement-{next(_numbers)}", _get_default_store())
        return cls(store, dist.get_rank(), dist.get_world_size(), limit)

    def reach(self, fault: str | None) -> str | None:
        """Say that this rank failed of `fault` (null: it went well), wait for the others; the first failure, if any."""
        self._round += 1
        keys = [self._key(self._round, rank) for rank in range(self.size)]
        self.store.set(keys[self.rank], fault or "")
        self._wait(keys, fault)
        faults = {rank: text.decode() for rank, text in enumerate(self.store.multi_get(keys)) if text}
        self.store.delete_key(self._key(self._round - 1, self.rank))  # all have come to this round: read by all
        if not faults:
            return None
        first = min(faults)
        more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
        return f"rank {first}: {faults[first]}{more}"

    def _wait(self, keys: list[str], fault: str | None) -> None:
        # Not Store.wait: it would keep this process's other threads from the store, which NCCL's watchdog asks as well.
        deadline, pause = time.monotonic() + self.limit.total_seconds(), _SLEEP[0]
        while not self.store.check(keys):
            if time.monotonic() > deadline:
                missing = [rank for rank, key in enumerate(keys) if not self.store.check([key])]
                own = f"; rank {self.rank} itself failed: {fault}" if fault else ""
                which = f"rank {missing[0]} has" if len(missing) == 1 else f"ranks {', '.join(map(str, missing))} have"
                raise Unanswered(f"{which} not answered for {self.limit}{own}")
            time.sleep(pause)
            pause = min(2 * pause, _SLEEP[1])

    def _key(self, number: int, rank: int) -> str:
        return f"{number}/{rank}"
