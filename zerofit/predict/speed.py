"""How long an optimizer step takes: a roofline of the fake run, what the strategy moves, and what the host does.

step = max(GPU, host), where GPU = compute + communication that nothing hides + optimizer + offload. Communication hides
behind compute as far as that goes. For ranking strategies and naming what holds a run up; absolute times are shown
with their band.
"""

from __future__ import annotations

from zerofit.config.strategy import ZERO_STAGE
from zerofit.plan.prediction import Speed
from zerofit.plan.spec import RunSpec
from zerofit.plan.units import gathers_blocks
from zerofit.predict.rates import VISIT_S, Rates
from zerofit.predict.seen import Seen
from zerofit.predict.traffic import traffic

ERROR = 0.3
"""Half-width of the band: 18 steps measured on H200s, predicted without calibration, were off by 26 % on average."""

PASSES = {"none": 2, "selective": 3, "full": 3}
"""Times that a module within a block is entered for a micro-batch: forward, recomputation, backward."""


def visits(spec: RunSpec, seen: Seen) -> int:
    """Times that ZeRO-3 fetches and releases weights for a micro-batch; of a unit, recomputation has them still."""
    if gathers_blocks(spec.strategy.offload):
        return PASSES["none"] * seen.units
    return PASSES[spec.strategy.activation_checkpointing] * seen.modules


def speed(spec: RunSpec, seen: Seen, rates: Rates) -> Speed:
    """Of a run whose micro-batches were seen, maybe under another strategy or on other ranks."""
    micro_steps = spec.batches.accumulation
    moved = traffic(spec, seen.trained, seen.frozen)
    share = micro_steps / seen.micro_steps
    compute = share * seen.seconds
    wire = max(0.0, moved.hidden / rates.link - compute) + moved.exposed / rates.link
    parts = {
        "compute": compute,
        "communication": wire,
        "optimizer": moved.optimizer / rates.memory,
        "offload": moved.pcie / rates.pcie + moved.host / rates.host,
    }
    host = share * rates.launch_s * seen.operations
    if ZERO_STAGE.get(spec.strategy.name) == 3:
        host += micro_steps * VISIT_S * visits(spec, seen)
    step = max(sum(parts.values()), host)
    return Speed(
        step_s=round(step, 6),
        samples_s=round(spec.batches.global_batch / step, 3),
        error=ERROR,
        parts={name: round(seconds, 6) for name, seconds in (*parts.items(), ("host", host))},
        rates=rates.source,
    )
