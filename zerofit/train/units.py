"""What ZeRO-3 gathers at once: whole transformer blocks, as FSDP2 does, each by one fetch and one release in a pass.

DeepSpeed has hooks on every module with weights, with LoRA some 25 of a block, and each gathers on its own. A leaf
module (deepspeed/utils/z3_leaf_module.py) has them on itself alone.
"""

from __future__ import annotations

from itertools import chain
from typing import Any

from deepspeed.utils.z3_leaf_module import set_z3_leaf_module

from zerofit.models.trained import TrainedModel


def gather_blocks(model: TrainedModel, offload: Any) -> None:
    """Make leaves of the blocks; embeddings, norms and heads stay modules of their own.

    `offload` is the DeepSpeedZeRoOffload of the prepared engine, before its first forward pass. Not before DeepSpeed
    takes the model: gradients of leaves that it finds then are reduced by a full backward hook on the leaf
    (runtime/zero/stage3.py:1534, DeepSpeed 0.19.8), which torch calls before the leaf's backward where no input needs a
    gradient (torch/utils/hooks.py, BackwardHook): adapters in the first block above frozen embeddings get zeros of the
    size of weights that are not there, and the run ends in an error. Found now, gradients are reduced one by one, as
    ever: none waits for its block.
    """
    offload._remove_module_hooks()
    for block in chain.from_iterable(model.stacks):
        set_z3_leaf_module(block, True)
    offload.setup_zero_stage3_hooks()
