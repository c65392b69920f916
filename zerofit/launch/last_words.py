"""The end of a rank's log: why it ended, without what would hide it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile

LINES = 20
BEFORE = 3  # lines: what a library says before it aborts ("terminate called after throwing ...")
_FATAL, _CURRENT = "Fatal Python error: ", "Current thread "
_REPORT = ("Thread ", _CURRENT, "  ", "Extension modules: ", "Python runtime state: ")
"""How the other lines of faulthandler's report begin."""


def last_words(log: Sequence[str]) -> list[str]:
    """Its last lines; where it ends with a crash that faulthandler reports, those that say of what, and where.

    faulthandler writes the stacks of all threads, outermost frame last, then the names of some 200 modules.
    """
    fatal = max((number for number, line in enumerate(log) if line.startswith(_FATAL)), default=len(log))
    report = log[fatal:]
    if not report or any(line and not line.startswith(_REPORT) for line in report[1:]):  # more came: it went on since
        return list(log[-LINES:])
    current = next((number for number, line in enumerate(report) if line.startswith(_CURRENT)), len(report))
    stack = takewhile(lambda line: line.startswith("  "), report[current + 1 :])
    return [*log[max(0, fatal - BEFORE) : fatal + 1], *report[current : current + 1], *list(stack)[:LINES]]
