"""The machine that a plan is for: this one, or what `--gpus`, `--gpu`, `--gpu-memory` and `--host-memory` say."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from zerofit.config.errors import UserError
from zerofit.config.hardware import parse_size
from zerofit.config.schema import Train
from zerofit.launch.dispatch import count_ranks, default_ranks
from zerofit.plan.calibration import Calibration
from zerofit.plan.calibration_file import default_root, stored
from zerofit.plan.cards import USUAL, asked_hardware, named_card
from zerofit.plan.hardware import host_memory_gib
from zerofit.plan.spec import Hardware
from zerofit.plan.strategy import Chosen


@dataclass(frozen=True)
class Machine:
    """What is planned for."""

    hardware: Hardware
    """Its cards."""
    host_gib: float | None
    """Memory of its host; null: not known."""
    here: bool
    """Whether it is this machine."""
    assumed: bool = False
    """Whether nobody said which card it has."""
    calibration: Calibration | None = None
    """What was measured of such cards; null: nothing."""

    def ranks(self, chosen: Chosen, asked: int | None, train: Train) -> int:
        """Of a run under the strategy `chosen`. Raises UserError, on this machine, as `zerofit train` does."""
        if self.here:
            return count_ranks(chosen, asked, self.hardware, train)
        return asked or chosen.ranks or default_ranks(chosen.strategy.name, self.hardware, train)


@dataclass(frozen=True)
class Asked:
    """The options, as they were given."""

    gpus: int | None = None
    gpu: str | None = None
    gpu_memory: str | None = None
    host_memory: str | None = None

    def machine(self, this: Hardware) -> Machine:
        """What they say, on `this` machine. Raises UserError for an unknown card, and a size that is none."""
        host = None if self.host_memory is None else size("--host-memory", self.host_memory)
        memory = None if self.gpu_memory is None else size("--gpu-memory", self.gpu_memory)
        card = None if self.gpu is None else named_card(self.gpu)
        if card is None and memory is None:
            if self.gpus is None:
                return Machine(this, host or host_memory_gib(), here=True, calibration=calibrated(this))
            if this.device == "cuda":
                more = this.model_copy(update={"count": self.gpus})
                known = calibrated(more)
                return Machine(more, host or host_memory_gib(), here=self.gpus <= this.count, calibration=known)
        usual = card is None and memory is None
        hardware = asked_hardware(
            card=named_card(USUAL) if usual else card, memory_gib=memory, count=self.gpus or 1, cpus=this.cpus
        )
        return Machine(hardware, host, here=False, assumed=usual, calibration=calibrated(hardware))


HERE = Asked()
"""This machine."""


def calibrated(hardware: Hardware) -> Calibration | None:
    """What `zerofit doctor --calibrate` has measured of such cards and was kept on this machine; null for a CPU."""
    return stored(hardware.name, default_root(os.environ)) if hardware.device == "cuda" else None


def size(option: str, text: Any) -> float:
    """GiB that `11GiB`, `11264MiB` or `11` stands for. Raises UserError."""
    try:
        found = float(parse_size(text))
    except ValueError as error:
        raise UserError(f"{option}: {error}") from None
    if found <= 0:
        raise UserError(f"{option}: {text} is no size: use for example 11GiB or 11264MiB, or a number of GiB")
    return found
