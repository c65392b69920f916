"""`hardware.memory_cap`: a card that is planned for, and used, as if it were smaller."""

from __future__ import annotations

from zerofit.config.errors import UserError
from zerofit.plan.spec import Hardware

SPARE = 0.05
"""Of a card's memory the driver keeps a little: one of 11 GiB offers 10.75."""


def capped(hardware: Hardware, cap: float | None) -> Hardware:
    """`hardware` with at most `cap` GiB a card; CPUs have no such limit. Raises UserError where cards are smaller."""
    if cap is None or hardware.device == "cpu":
        return hardware
    fraction(cap, hardware.memory_gib, hardware.name)
    return hardware.model_copy(update={"memory_gib": min(cap, hardware.memory_gib)})


def fraction(cap: float, card: float, name: str) -> float:
    """Share of a card of `card` GiB that a cap is. Raises UserError where it is more than the card has."""
    if cap > card * (1 + SPARE):
        raise UserError(
            f"hardware.memory_cap: {cap:g} GiB are more than {name} has, {card:g} GiB: use less, or leave it out"
        )
    return min(1.0, cap / card)
