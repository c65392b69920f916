"""Activation checkpointing: what a block computed is forgotten in forward and computed again in backward."""

from __future__ import annotations

from functools import partial
from typing import Literal

from torch.utils.checkpoint import checkpoint

from zerofit.models.trained import TrainedModel

EVERY = {"none": 0, "selective": 2, "full": 1}
"""Of how many blocks one is recomputed; 0: of none."""


def apply_checkpointing(model: TrainedModel, mode: Literal["none", "selective", "full"]) -> None:
    """Recompute every block (full) or every other one, the first included (selective), in backward.

    Whole blocks, without re-entering autograd. Choosing single operations (`create_selective_checkpoint_contexts`)
    breaks under ZeRO-3, whose linear layer adds its bias in place. The block's `forward` is wrapped, not the block:
    parameter names stay, and the hooks of FSDP2 and ZeRO around the block stay outside.
    """
    if EVERY[mode]:
        for stack in model.stacks:
            for block in stack[:: EVERY[mode]]:
                block.forward = partial(checkpoint, block.forward, use_reentrant=False)
