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
from zerofit.predict.rates import BLOCK_S, VISIT_S, Rates
from zerofit.predict.seen import Seen
from zerofit.predict.traffic import traffic

ERROR = 0.3
"""Half-width of the band: 18 steps measured on H200s, predicted without calibration, were off by 26 % on average."""

PASSES = {"none": 2, "selective": 3, "full": 3}
"""Times that a module within a block is entered for a micro-batch: forward, recomputation, backward."""


UPDATE = 2
"""Operations of a step under ZeRO for each module with weights: gradients are looked at one by one (with the GPU's work
43 ms of a step of ViT-H under ZeRO-2 on 4 H200s, and 147 ms of Qwen3-8B on 2)."""


def visiting(spec: RunSpec, seen: Seen) -> float:
    """Seconds that ZeRO-3 fetches and releases weights in a micro-batch; of a block, recomputation has them still."""
    if gathers_blocks(spec.strategy.offload):
        return BLOCK_S * PASSES["none"] * seen.units
    return VISIT_S * PASSES[spec.strategy.activation_checkpointing] * seen.modules


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
    stage = ZERO_STAGE.get(spec.strategy.name, 0)
    host = share * rates.launch_s * seen.operations + (micro_steps * visiting(spec, seen) if stage == 3 else 0.0)
    updating = UPDATE * rates.launch_s * seen.modules if stage else 0.0
    step = max(compute + late, host) + max(wire + parts["optimizer"] + parts["offload"], updating)
    return Speed(
        step_s=round(step, 6),
        samples_s=round(spec.batches.global_batch / step, 3),
        error=ERROR,
        parts={name: round(seconds, 6) for name, seconds in (*parts.items(), ("host", host + updating))},
        rates=rates.source,
    )
