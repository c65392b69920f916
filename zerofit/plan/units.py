"""What ZeRO-3 gathers at once."""

from __future__ import annotations

from zerofit.config.strategy import Offload


def gathers_blocks(offload: Offload) -> bool:
    """Whether a run under ZeRO-3 gathers whole blocks, and not each module by itself.

    Weights on a drive come through a few buffers, one for each weight (DeepSpeed 0.19.8,
    runtime/swap_tensor/partitioned_param_swapper.py:310): fewer than a block has.
    """
    return offload.params != "nvme"
