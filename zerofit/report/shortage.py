"""What a message of PyTorch, DeepSpeed or the system says of memory that ran out."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

GIB = 2**30
UNITS = {"bytes": 1, "B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": GIB, "TiB": 2**40, "PiB": 2**50}
_AMOUNT = r"([\d.]+) ?([KMGTP]iB|B|bytes)\b"
DEVICE = re.compile(r"\b(?:out of memory|OutOfMemoryError)\b", re.IGNORECASE)
HOST = re.compile(
    r"DefaultCPUAllocator|\bMemoryError\b|Cannot allocate memory|Unable to allocate|killed by SIGKILL|std::bad_alloc"
)
TRIED = re.compile(f"(?:[Tt]ried to allocate|Unable to allocate) {_AMOUNT}")
ALLOCATED = re.compile(f"{_AMOUNT} (?:is allocated by PyTorch|already allocated)")
CAPACITY = re.compile(f"total capacity of {_AMOUNT}|{_AMOUNT} total capacity")


@dataclass(frozen=True)
class Shortage:
    """Memory that ran out. Amounts in GiB; null where the message does not say."""

    of: Literal["GPU", "host"]
    """Whose memory."""
    tried: float | None = None
    """What was asked for and could not be had."""
    allocated: float | None = None
    """What PyTorch held by then."""
    capacity: float | None = None
    """What there is in all."""

    @property
    def needed(self) -> float | None:
        """What would have been enough for this one request, and so the least that the run needs."""
        if self.tried is None or self.allocated is None:
            return None
        return self.tried + self.allocated

    def words(self) -> str:
        """In one line."""
        if self.tried is None:
            return f"the {self.of}'s memory ran out"
        line = f"{_said(self.tried)} more could not be had of the {self.of}'s memory"
        if self.allocated is not None:
            line += f", of which PyTorch held {_said(self.allocated)}"
        return line if self.capacity is None else f"{line}; it has {_said(self.capacity)}"


def shortage(message: str) -> Shortage | None:
    """Of a rank's error, as it stands in its record; null where it says nothing of memory."""
    of: Literal["GPU", "host"] = "host"
    if not HOST.search(message):
        if not DEVICE.search(message):
            return None
        of = "GPU"
    return Shortage(of, *(_gib(pattern, message) for pattern in (TRIED, ALLOCATED, CAPACITY)))


def _gib(pattern: re.Pattern[str], message: str) -> float | None:
    """The amount that `pattern` finds."""
    found = pattern.search(message)
    if found is None:
        return None
    number, unit = (group for group in found.groups() if group is not None)
    return float(number) * UNITS[unit] / GIB


def _said(gib: float) -> str:
    return f"{gib:.2f} GiB" if gib >= 0.1 else f"{gib * 1024:.1f} MiB"
