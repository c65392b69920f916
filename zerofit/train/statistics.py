"""Running statistics of a probe's BatchNorm: each rank has its own, as in MAE's script; rank 0's count."""

from __future__ import annotations

import torch.distributed as dist
from torch import nn

from zerofit.models.classifier import HEAD_NORM


def share_statistics(model: nn.Module) -> None:
    """Give every rank those of rank 0, before they are used or saved. Collective.

    Of a buffer that differs between ranks, engines would save whichever: FSDP2 spreads the writing over the ranks.
    """
    for name, buffer in model.named_buffers():
        if HEAD_NORM in name:
            dist.broadcast(buffer, src=0)
