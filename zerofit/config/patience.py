"""How long a run is waited for: environment variables, because launchers of every kind hand those on to ranks."""

from __future__ import annotations

import math
from collections.abc import Mapping

from zerofit.config.errors import UserError

GRACE = "ZEROFIT_GRACE"
"""Seconds that ranks have, from the signal on, to save and end."""
WATCHDOG = "ZEROFIT_WATCHDOG"
"""Minutes without an optimizer step or a batch after which a run ends; 0: it never does."""


def grace(environ: Mapping[str, str]) -> float:
    """Seconds. Raises UserError where the variable is no number above 0."""
    return _number(environ, GRACE, 60.0, least=1e-3)


def watchdog(environ: Mapping[str, str]) -> float:
    """Seconds; 0: off. Raises UserError where the variable is no number."""
    return 60 * _number(environ, WATCHDOG, 30.0, least=0.0)


def _number(environ: Mapping[str, str], name: str, default: float, least: float) -> float:
    text = environ.get(name, "")
    try:
        value = float(text or default)
    except ValueError:
        value = math.nan
    if not least <= value < math.inf:
        raise UserError(
            f"{name}={text}: is to be a number{' above 0' if least else ', 0 or more'}; default: {default:g}"
        )
    return value
