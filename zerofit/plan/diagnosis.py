"""What `zerofit doctor` finds of a machine, as `--json` prints it. Fields are added, never renamed."""

from __future__ import annotations

from typing import Literal

from zerofit.config.section import Section

Status = Literal["ok", "warning", "error"]


class Check(Section):
    """One thing that was looked at."""

    name: str
    """What."""
    status: Status
    """ok; warning: some runs fail, or go slower than they could; error: every run fails."""
    found: str
    """What there is, in a few words."""
    advice: str = ""
    """What to do about it; empty where it is ok."""


class Diagnosis(Section):
    """All that was looked at."""

    version: Literal[1] = 1
    """Version of this format."""
    checks: tuple[Check, ...]
    """In the order of the table."""

    @property
    def worst(self) -> Status:
        """Of all checks."""
        order: tuple[Status, ...] = ("ok", "warning", "error")
        return max((one.status for one in self.checks), key=order.index, default="ok")
