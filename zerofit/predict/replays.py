"""Which engine a strategy is replayed as."""

from __future__ import annotations

from zerofit.predict.plain import Replicated, Whole
from zerofit.predict.replay import Replay

REPLAYS: dict[str, type[Replay]] = {
    "single": Whole,
    "ddp": Replicated,
}
