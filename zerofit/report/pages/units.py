"""Numbers as pages write them."""

from __future__ import annotations

import math
from datetime import timedelta

NONE = "–"


def number(value: float | None, digits: int = 3) -> str:
    """With so many significant digits, thousands apart: 0.0123, 12.3, 1,234."""
    if value is None or not math.isfinite(value):
        return NONE
    if value == 0:
        return "0"
    if abs(value) < 1e-3:
        return f"{value:.{digits - 1}e}"
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    return f"{value:,.{decimals}f}"


def count(value: float | None) -> str:
    """A whole number."""
    return NONE if value is None else f"{value:,.0f}"


def percent(share: float | None, decimals: int = 1) -> str:
    """A fraction in percent."""
    return NONE if share is None else f"{100 * share:.{decimals}f} %"


def fixed(value: float | None, decimals: int = 2) -> str:
    """With so many decimals: they stand below one another in a column."""
    return NONE if value is None or not math.isfinite(value) else f"{value:,.{decimals}f}"


def duration(seconds: float | None) -> str:
    """0:02:28; below a minute 12.3 s."""
    if seconds is None:
        return NONE
    return f"{seconds:.1f} s" if seconds < 60 else str(timedelta(seconds=round(seconds)))


def microseconds(value: float | None) -> str:
    """In µs, ms or s."""
    if value is None:
        return NONE
    for unit, size in (("s", 1e6), ("ms", 1e3)):
        if abs(value) >= size:
            return f"{number(value / size)} {unit}"
    return f"{number(value)} µs"
