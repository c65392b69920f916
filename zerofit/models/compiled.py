"""`torch.compile`, block by block: the blocks are alike, so one compilation serves all of them."""

from __future__ import annotations

from itertools import chain

import torch

from zerofit.models.trained import TrainedModel


def compile_blocks(model: TrainedModel) -> None:
    """Compile every block's `forward` at its first call; on a CPU that takes a C++ compiler.

    The forward and not the block: names of parameters stay, and the hooks of DDP and FSDP2 around it stay outside.
    """
    for block in chain.from_iterable(model.stacks):
        block.forward = torch.compile(block.forward)
