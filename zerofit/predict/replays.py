"""Which engine a strategy is replayed as."""

from __future__ import annotations

from collections.abc import Callable

from zerofit.plan.spec import RunSpec
from zerofit.predict.extracting import Float32, Low
from zerofit.predict.fsdp2 import FullyShard
from zerofit.predict.plain import Replicated, Whole
from zerofit.predict.replay import Books, Replay
from zerofit.predict.zeros import zero1, zero2, zero3, zeropp

REPLAYS: dict[str, Callable[[RunSpec, Books], Replay]] = {
    "single": Whole,
    "ddp": Replicated,
    "fsdp2": FullyShard,
    "zero1": zero1,
    "zero2": zero2,
    "zero3": zero3,
    "zeropp": zeropp,
}
EXTRACTING: dict[str, Callable[[RunSpec, Books], Replay]] = {
    "single": Float32,
    "ddp": Float32,
    "fsdp2": FullyShard,
    "zero1": Low,
    "zero2": Low,
    "zero3": FullyShard,
    "zeropp": FullyShard,
}
"""As which one a frozen backbone is held that computes features (train/strategy.py, EVALUATION)."""
