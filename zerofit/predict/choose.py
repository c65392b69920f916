"""`strategy: auto`: which of many plans is taken, once their memory and their speed are predicted."""

from __future__ import annotations

from collections.abc import Sequence

from zerofit.plan.choice import Row

WHOLE = ("ddp", "zero1", "zero2", "fsdp2", "zero3")
OFFLOADED = ("zero2+offload_optimizer", "zero3+offload_optimizer", "fsdp2+offload_all", "zero3+offload_all")
"""In the order of what they cost: those that a recipe can do with first."""
ORDER = ("single", *WHOLE, *OFFLOADED)
"""Strategies by what they cost, the simplest first."""
RECOMPUTED = ("none", "selective", "full")
"""Activation checkpointing, likewise."""
MARGIN = 0.02
"""Of two plans whose speeds differ by less than this share the simpler one is taken."""


def best(rows: Sequence[Row]) -> Row | None:
    """The fastest of those that fit, or else of those that are tight; null where none does either.

    Of those within MARGIN of it the simplest strategy, with the least that is computed again, and of these the fastest.
    Where no speeds are predicted the simplest that fits, with the largest micro-batch.
    """
    for verdict in ("fits", "tight"):
        able = [row for row in rows if row.verdict == verdict]
        if able:
            fastest = max(_speed(row) for row in able)
            return min((row for row in able if _speed(row) >= fastest * (1 - MARGIN)), key=_cost)
    return None


def next_best(rows: Sequence[Row], chosen: Row) -> Row | None:
    """The best of another strategy; where none of those fits, of the same one otherwise."""
    others = [row for row in rows if row.strategy != chosen.strategy]
    return best(others) or best([row for row in rows if row != chosen])


def needs_least(rows: Sequence[Row]) -> Row | None:
    """The one that needs least of a card; null where nothing was predicted."""
    known = [row for row in rows if row.needed_gib is not None]
    return min(known, key=lambda row: (row.needed_gib or 0.0, row.host_gib or 0.0), default=None)


def _speed(row: Row) -> float:
    return row.samples_s or 0.0


def _cost(row: Row) -> tuple[int, int, float, int]:
    place = ORDER.index(row.strategy) if row.strategy in ORDER else len(ORDER)
    return place, RECOMPUTED.index(row.activation_checkpointing), -_speed(row), -row.micro_batch
