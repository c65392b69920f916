"""How long an optimizer step takes: a roofline of the fake run, what the strategy moves, and what the host does.

step = the longer of GPU and host, and some of the shorter, in forward and backward + max(GPU, host) of what follows,
for the norm of the gradients is waited for. In passes the GPU has compute, and communication as far as compute does
not hide it; then communication that nothing hides, optimizer and offload. For ranking strategies and naming what holds
a run up; absolute times are shown with their band.
"""

from __future__ import annotations

from zerofit.config.strategy import ZERO_STAGE
from zerofit.plan.prediction import Speed
from zerofit.plan.spec import RunSpec
from zerofit.plan.units import gathers_blocks
from zerofit.predict.rates import Rates
from zerofit.predict.seen import AGAIN, Seen
from zerofit.predict.traffic import traffic

ERROR = 0.3
"""Half-width of the band: 23 ways to train, predicted and then measured on an H200, were off by 20 % on average."""

PASSES = {"none": 2, "selective": 3, "full": 3}
"""Times that a module within a block is entered for a micro-batch: forward, recomputation, backward."""

OVERLAP = 4.0
"""Where GPU and host take as long, one waits for the other in some passes: together they take 2 ** (1 / this)."""

# What a step does on the host besides, in the time of as many operations. Of ViT-H, Qwen3-8B and CAD-MLLM on 4 H200s
# and 24 ways to train models of up to 8 billion on one (docs/log.md, 2026-11-30 and 2026-12-01), and of ViT-H under
# ZeRO-3 module by module (0.79 s more than under DDP).
RECOMPUTED = 90
"""Of a block that is recomputed: what it keeps goes through hooks, and random numbers' states are kept and set."""
UPDATE, GROUP = 5, 22
"""Of a step under ZeRO, for each gradient of a rank, and each group of the optimizer (66 with rates by depth)."""
HOOK, REDUCED = 3, 12
"""Of each gradient: in a micro-batch under ZeRO-1 and 2, and when ZeRO reduces it to the rank that keeps it."""
SHARDED = 75
"""Of each pass through a block under FSDP2: gathered, put in place, and freed."""
BLOCK, MODULE = 170, 70
"""The same under ZeRO-3, of a block, and of a module where it gathers these one by one."""


def managing(spec: RunSpec, seen: Seen) -> float:
    """Operations that an engine and recomputation add to a step's passes; of a block, recomputation has the weights."""
    micro_steps, stage = spec.batches.accumulation, ZERO_STAGE.get(spec.strategy.name, 0)
    added = micro_steps * RECOMPUTED * AGAIN[spec.strategy.activation_checkpointing] * seen.units
    if stage == 3 and not gathers_blocks(spec.strategy.offload):
        return added + micro_steps * MODULE * PASSES[spec.strategy.activation_checkpointing] * seen.modules
    if stage == 3 or spec.strategy.name == "fsdp2":
        added += micro_steps * (BLOCK if stage else SHARDED) * PASSES["none"] * seen.units
    if stage:
        hooks, reductions = 0 if stage == 3 else micro_steps, 1 if stage == 1 else micro_steps
        added += seen.gradients * (HOOK * hooks + REDUCED * reductions / spec.batches.ranks)
    return added


def updating(spec: RunSpec, seen: Seen) -> float:
    """Operations of ZeRO's own in a step; weights with and without decay are two groups, at each rate."""
    if spec.strategy.name not in ZERO_STAGE:
        return 0
    rates = 1 if spec.recipe.optimizer.layer_decay == 1 else seen.units
    return UPDATE * seen.gradients / spec.batches.ranks + GROUP * 2 * rates


def together(gpu: float, host: float) -> float:
    """Seconds of passes that take either of them so long."""
    longer = max(gpu, host)
    return longer * (1 + (min(gpu, host) / longer) ** OVERLAP) ** (1 / OVERLAP) if longer else 0.0


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
    host = rates.launch_s * (share * seen.operations + managing(spec, seen))
    after = rates.launch_s * updating(spec, seen)
    step = together(compute + late, host) + max(wire + parts["optimizer"] + parts["offload"], after)
    return Speed(
        step_s=round(step, 6),
        samples_s=round(spec.batches.global_batch / step, 3),
        error=ERROR,
        parts={name: round(seconds, 6) for name, seconds in (*parts.items(), ("host", host + after))},
        rates=rates.source,
    )
