"""Whether a run fits a card and a host: docs/plan.md has the rule and where its numbers come from."""

from __future__ import annotations

from typing import Literal

from zerofit.config.errors import UserError
from zerofit.config.strategy import REPLICATED
from zerofit.plan.calibration import Calibration
from zerofit.plan.closed_form import ERROR as CLOSED_FORM_ERROR
from zerofit.plan.closed_form import largest_layer
from zerofit.plan.hardware import GIB
from zerofit.plan.prediction import Fit, Memory, Verdict
from zerofit.plan.spec import RunSpec

EXACT_ERROR = 0.02
"""Half-width of the band of a prediction by a run of fake tensors."""
CONTEXT, COMMUNICATORS = 0.6, 0.9
"""GiB of a card outside PyTorch's allocator: CUDA's context and modules with cuBLAS' workspace; what NCCL holds for
several ranks."""
SLACK = {True: 0.04, False: 0.10}
"""What the allocator keeps beyond the peak and does not give back, as a fraction of it: by whether every rank holds all
(single, ddp), or the engine gathers, scatters and flattens."""
HOST_SLACK = 0.10
"""The same of host memory, of which the system and other programs take some."""


def outside(ranks: int, calibration: Calibration | None = None) -> float:
    """GiB of a card that no tensor gets, as far as `calibration` has them as they were measured."""
    context, communicators = (None, None) if calibration is None else calibration.outside(ranks)
    alone = CONTEXT if context is None else context
    return alone + ((COMMUNICATORS if communicators is None else communicators) if ranks > 1 else 0.0)


def outside_from(ranks: int, calibration: Calibration | None) -> str:
    """Where these come from: shipped, or `calibrated 2026-11-29` where any of them was measured."""
    known = calibration is not None and any(size is not None for size in calibration.outside(ranks))
    return calibration.source if calibration is not None and known else "shipped"


def fit(
    memory: Memory,
    spec: RunSpec,
    host_gib: float | None = None,
    calibration: Calibration | None = None,
    slack: float | None = None,
) -> Fit:
    """Whether `memory` fits the run's cards, and a host of `host_gib` GiB (null: not known).

    `calibration` is what was measured of such cards, and `slack` what the allocator was seen to keep beyond the peak,
    as a fraction of it (null: as is usual). Raises UserError for a card that is smaller than one layer's weights: no
    strategy fits that.
    """
    card, ranks = spec.hardware.memory_gib, spec.batches.ranks
    layer, alone = (largest_layer(spec) or 0) / GIB, outside(1, calibration)
    if layer + alone > card:
        raise UserError(
            f"hardware: a card of {card:g} GiB cannot hold the weights of one layer ({layer:.2f} GiB in "
            f"{spec.precision}) beside CUDA's own {alone:.2g} GiB: no strategy fits it; use a larger card"
        )
    error = EXACT_ERROR if memory.exact else CLOSED_FORM_ERROR
    least = memory.peak_gib * (1 + error) + outside(ranks, calibration)
    needed = least + memory.peak_gib * (SLACK[spec.strategy.name in REPLICATED] if slack is None else slack)
    host, all_host = memory.host_gib, memory.host_gib * (1 + HOST_SLACK)
    return Fit(
        verdict=_verdict(least, needed, card),
        needed_gib=round(needed, 2),
        least_gib=round(least, 2),
        card_gib=card,
        host_needed_gib=host,
        host_gib=host_gib,
        host_verdict="fits" if host_gib is None else _verdict(host, all_host, host_gib),
        outside_gib=round(outside(ranks, calibration), 4),
        outside_from=outside_from(ranks, calibration),
    )


def _verdict(least: float, needed: float, there: float) -> Verdict:
    if needed <= there:
        return "fits"
    return "tight" if least <= there else "does not fit"


def overall(found: Fit) -> Verdict:
    """The worse of the card's and the host's."""
    order: tuple[Literal["fits"], Literal["tight"], Literal["does not fit"]] = ("fits", "tight", "does not fit")
    return max(found.verdict, found.host_verdict, key=order.index)
