"""What ranks do just before they leave their process group, however a run ends in good order."""

from __future__ import annotations

from collections.abc import Callable

BEFORE: list[Callable[[], object]] = []
"""Each once, the newest first. For libraries whose own end, at the process's, comes when the group is gone."""


def part() -> None:
    """Do them."""
    while BEFORE:
        BEFORE.pop()()
