"""`profile:` in a recipe: a trace of a few optimizer steps, written by every rank."""

from __future__ import annotations

from pydantic import model_validator

from zerofit.config.ranges import Count
from zerofit.config.section import Section


class Profile(Section):
    """Which steps are traced; `zerofit trace RUN` reads what comes of it."""

    steps: tuple[Count, Count]
    """First and last optimizer step of the window, both included; the first step of a run is 1."""
    memory: bool = False
    """On CUDA: write PyTorch's snapshot of the device's memory as well."""

    @model_validator(mode="after")
    def _in_order(self) -> Profile:
        first, last = self.steps
        if first > last:
            raise ValueError(f"steps are the first and the last one: use [{last}, {first}]")
        return self
