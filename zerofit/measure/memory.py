"""Peak memory of one rank."""

from __future__ import annotations

import resource
import sys
from contextlib import suppress
from pathlib import Path

import torch

GIB = 2**30
_STATUS = Path("/proc/self/status")


class Peak:
    """The largest amounts of memory in use since it was made or reset."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._before: dict[str, float] = {}
        self._held = False
        self.reset()

    def reset(self) -> None:
        """Begin anew from what is in use now (off Linux, the host's peak stays that of the whole process)."""
        if self.device.type == "cuda":
            torch.cuda.init()  # the next line needs it
            torch.cuda.reset_peak_memory_stats(self.device)
        with suppress(OSError):  # not Linux, or a sandbox that hides it
            Path("/proc/self/clear_refs").write_text("5")

    def figures(self) -> dict[str, float]:
        """GiB: host_rss_gib (resident memory of this process) and on CUDA peak_alloc_gib and peak_reserved_gib."""
        if self._held:
            return dict(self._before)
        figures = {"host_rss_gib": host_peak() / GIB}
        if self.device.type == "cuda":
            figures["peak_alloc_gib"] = torch.cuda.max_memory_allocated(self.device) / GIB
            figures["peak_reserved_gib"] = torch.cuda.max_memory_reserved(self.device) / GIB
        return {name: round(max(value, self._before.get(name, 0.0)), 4) for name, value in figures.items()}

    def hold(self) -> None:
        """Let the figures stand as they are: what comes next, a profiler, takes memory that is not training's."""
        self._before, self._held = self.figures(), True

    def go_on(self) -> None:
        """Where they were held, count again from now on, on top of them."""
        if self._held:
            self._held = False
            self.reset()


def host_peak() -> int:
    """Largest resident memory of this process, in bytes.

    VmHWM where the kernel tells it: getrusage's ru_maxrss, which a child inherits, may be that of the process that
    started this one, and cannot be reset.
    """
    with suppress(OSError):
        for line in _STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
