"""How long an optimizer step takes: a roofline of the fake run, what the strategy moves, and what the host does.

step = max(GPU, host), where GPU = compute + communication that nothing hides + optimizer + offload. Communication hides
behind compute as far as that goes. For ranking strategies and naming what holds a run up; absolute times are shown
with their band.
"""

from __future__ import annotations

from dataclasses import dataclass

from zerofit.config.strategy import ZERO_STAGE
from zerofit.plan.prediction import Speed
from zerofit.plan.spec import RunSpec
from zerofit.predict.rates import LAUNCH_S, VISIT_S, Rates
from zerofit.predict.traffic import Sizes, traffic

ERROR = 0.3
"""Half-width of the band: 18 steps measured on H200s, predicted without calibration, were off by 26 % on average."""


@dataclass(frozen=True)
class Pass:
    """A micro-batch's forward and backward pass, as the fake run has seen it."""

    seconds: float
    """Of the GPU, by the roofline."""
    operations: int
    """Kernels that were launched."""
    visits: int
    """Times that a module with weights of its own is entered, in forward, recomputation and backward."""


def speed(spec: RunSpec, one: Pass, sizes: Sizes, rates: Rates) -> Speed:
    """Of a run whose micro-batches take `one` each."""
    micro_steps = spec.batches.accumulation
    moved = traffic(spec, sizes)
    compute = micro_steps * one.seconds
    wire = max(0.0, moved.hidden / rates.link - compute) + moved.exposed / rates.link
    parts = {
        "compute": compute,
        "communication": wire,
        "optimizer": moved.optimizer / rates.memory,
        "offload": moved.pcie / rates.pcie + moved.host / rates.host,
    }
    gathers = VISIT_S * one.visits if ZERO_STAGE.get(spec.strategy.name) == 3 else 0.0
    host = micro_steps * (LAUNCH_S * one.operations + gathers)
    step = max(sum(parts.values()), host)
    return Speed(
        step_s=round(step, 6),
        samples_s=round(spec.batches.global_batch / step, 3),
        error=ERROR,
        parts={name: round(seconds, 6) for name, seconds in (*parts.items(), ("host", host))},
    )
