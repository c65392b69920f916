"""How long an optimizer step takes: a roofline of the fake run, what the strategy moves, and what the host does.

step = max(GPU, host) of forward and backward + max(GPU, host) of what follows, for the norm of the gradients is waited
for. In passes the GPU has compute, and communication as far as compute does not hide it; then communication that
nothing hides, optimizer and offload. For ranking strategies and naming what holds a run up; absolute times are shown
with their band.
"""

from __future__ import annotations

from zerofit.config.strategy import ZERO_STAGE
from zerofit.plan.prediction import Speed
from zerofit.plan.spec import RunSpec
from zerofit.plan.units import gathers_blocks
from zerofit.predict.rates import Rates
from zerofit.predict.seen import Seen
from zerofit.predict.traffic import traffic

ERROR = 0.3
"""Half-width of the band: 18 steps measured on H200s, predicted without calibration, were off by 26 % on average."""

PASSES = {"none": 2, "selective": 3, "full": 3}
"""Times that a module within a block is entered for a micro-batch: forward, recomputation, backward."""


# What engines do on the host besides, in the time of as many operations. Of ViT-H, Qwen3-8B and CAD-MLLM on 4 H200s
# (docs/log.md, 2026-11-30), and of ViT-H there under ZeRO-3 module by module (0.79 s more than under DDP).
UPDATE, GROUP = 5, 22
"""Of a step under ZeRO, for each gradient of a rank, and each group of the optimizer (66 with rates by depth)."""
REDUCED = 5
"""Of a micro-batch under ZeRO-1 and 2, for each gradient: into a bucket, and out of it."""
SHARDED = 55
"""Of each pass through a block under FSDP2: gathered, put in place, and freed."""
BLOCK, MODULE = 170, 70
"""The same under ZeRO-3, of a block, and of a module where it gathers these one by one."""


def managing(spec: RunSpec, seen: Seen) -> int:
    """Operations that an engine adds to a micro-batch; of a block, recomputation has the weights still."""
    stage = ZERO_STAGE.get(spec.strategy.name, 0)
    if stage == 3 and not gathers_blocks(spec.strategy.offload):
        return MODULE * PASSES[spec.strategy.activation_checkpointing] * seen.modules
    if stage == 3 or spec.strategy.name == "fsdp2":
        return (BLOCK if stage else SHARDED) * PASSES["none"] * seen.units
    return REDUCED * seen.gradients if stage else 0


def updating(spec: RunSpec, seen: Seen) -> float:
    """Operations of ZeRO's own in a step; weights with and without decay are two groups, at each rate."""
    if spec.strategy.name not in ZERO_STAGE:
        return 0
    rates = 1 if spec.recipe.optimizer.layer_decay == 1 else seen.units
    return UPDATE * seen.gradients / spec.batches.ranks + GROUP * 2 * rates


def speed(spec: RunSpec, seen: Seen, rates: Rates) -> Speed:
    """Of a run whose micro-batches were seen, maybe under another strategy or on other ranks."""
    micro_steps = spec.batches.accumulation
    moved = traffic(spec, seen.trained, seen.frozen)
    share = micro_steps / seen.micro_steps
    compute = share * seen.seconds
    late, wire = max(0.0, moved.hidden / rates.link - compute), moved.exposed / rates.link
    parts = {
        "compute": compute,
        "communication": late + wire,
        "optimizer": moved.optimizer / rates.memory,
        "offload": moved.pcie / rates.pcie + moved.host / rates.host,
    }
    host = rates.launch_s * (share * seen.operations + micro_steps * managing(spec, seen))
    after = rates.launch_s * updating(spec, seen)
    step = max(compute + late, host) + max(wire + parts["optimizer"] + parts["offload"], after)
    return Speed(
        step_s=round(step, 6),
        samples_s=round(spec.batches.global_batch / step, 3),
        error=ERROR,
        parts={name: round(seconds, 6) for name, seconds in (*parts.items(), ("host", host + after))},
        rates=rates.source,
    )
