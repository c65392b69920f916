"""What a strategy moves in an optimizer step, in bytes: between GPUs, over PCIe, and in the optimizer itself.

Of T trained and F frozen elements on N ranks. Rings send (N - 1) / N of a buffer for a gather or a scatter, and twice
that for an all-reduce (Thakur et al. 2005). Volumes by strategy: ZeRO (Rajbhandari et al. 2020, section 7), ZeRO++
(Wang et al. 2023), and what zerofit/plan/deepspeed.py sets: gradients are reduced in the compute precision, under
ZeRO-2 and 3 after each micro-batch.
"""

from __future__ import annotations

from dataclasses import dataclass

from zerofit.config.strategy import REPLICATED, ZERO_STAGE
from zerofit.plan.spec import RunSpec
from zerofit.plan.states import BYTES, FLOAT

ADAMW_FLOAT = 28
"""Bytes read and written for an element in float32: weight, gradient and two moments in, all but the gradient out.

Each once, as the fused kernel does (plan/fused.py).
"""
OTHERS_FLOAT = 20
"""The same with one moment."""
MASTERS = 46
"""Besides, under ZeRO-1 and 2, and nearly so under 3 (DeepSpeed 0.19.8, runtime/zero/stage_1_and_2.py:3020-3130), of a
gradient in 2 bytes: looked through for what is not finite (4), its norm in float64 (18), made flat (4), cast (6),
scaled (8); and the weight cast back (6)."""
INT8 = 1


@dataclass(frozen=True)
class Traffic:
    """Bytes of a rank in an optimizer step."""

    hidden: float
    """Sent to other ranks while forward and backward passes compute."""
    exposed: float
    """Sent when nothing computes."""
    optimizer: float
    """Read and written by the optimizer on the GPU."""
    pcie: float
    """Copied between host and GPU; gradients and weights."""
    host: float
    """Read and written by the optimizer on the host."""


def traffic(spec: RunSpec, trained: int, frozen: int) -> Traffic:
    """Of a run with so many elements of parameters."""
    name, ranks, micro_steps = spec.strategy.name, spec.batches.ranks, spec.batches.accumulation
    low, stage = BYTES[spec.precision], ZERO_STAGE.get(spec.strategy.name, 0)
    every, share = trained + frozen, (ranks - 1) / ranks
    sharded = stage == 3 or name == "fsdp2"
    reduced = FLOAT if name in REPLICATED else low
    if sharded:
        gathers = INT8 * every + low * every if name == "zeropp" else 2 * low * every
        hidden = micro_steps * share * (gathers + reduced * trained)
        exposed = 0.0
    elif stage == 2:
        hidden, exposed = micro_steps * share * 2 * reduced * trained, share * low * trained
    else:
        hidden = share * 2 * reduced * trained
        exposed = share * low * trained if stage else 0.0
    own = trained / (ranks if stage or name == "fsdp2" else 1)
    adamw = spec.recipe.optimizer.name == "adamw"
    update = own * ((ADAMW_FLOAT if adamw else OTHERS_FLOAT) + (MASTERS if stage else 0))
    offload = spec.strategy.offload
    away, pcie = offload.optimizer is not None, 0.0
    if away:
        pcie += own * low * (micro_steps + 1)  # gradients down after each micro-batch, weights up after the step
    if offload.params is not None:
        pcie += micro_steps * 2 * low * every / ranks  # a rank's share up, for each pass
    return Traffic(hidden, exposed, 0.0 if away else update, pcie, update if away else 0.0)
