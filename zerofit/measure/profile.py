"""A trace of a few optimizer steps (`profile:`): RUN/profile/rank-N.json.gz, of every rank, read by `zerofit trace`.

A step is marked from its first forward to its optimizer's end; waiting for data, validation and saving lie between two
marks. Before the window there is nothing here but the comparison of a step's number, and after it as well.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import torch
import torch.distributed as dist
from torch.profiler import ProfilerActivity, profile, record_function

from zerofit.config.profile import Profile

ENTRIES = 100_000
"""Allocations that a memory snapshot goes back, at most; each takes some KiB of the host's memory."""


class Window:
    """The steps `asked` of one rank; of a run that is resumed amid them, or that stops there, those that it takes."""

    def __init__(self, asked: Profile, directory: Path, device: torch.device) -> None:
        self.first, self.last = asked.steps
        self.directory = directory
        self._device = _Cuda(device, asked.memory) if device.type == "cuda" else _Cpu()
        if asked.memory and device.type == "cpu" and dist.get_rank() == 0:
            print("profile.memory: on a CPU there is no snapshot of the device's memory", flush=True)
        self._profile: profile | None = None
        self._mark: record_function | None = None

    def begin(self, step: int) -> None:
        """An optimizer step begins. Collective in the first one of the window."""
        if not self.first <= step <= self.last:
            return
        if self._profile is None:
            self._profile = self._started()
        self._mark = record_function(f"ProfilerStep#{step}")  # the name by which viewers and HTA know a step
        self._mark.__enter__()

    def end(self, step: int) -> None:
        """An optimizer step has been taken."""
        if not self.first <= step <= self.last:
            return
        assert self._mark is not None, "a step begins before it ends"
        self._mark.__exit__(None, None, None)
        if step == self.last:
            self.close()

    def close(self) -> None:
        """Write what has been taken, and take no more. A trace that cannot be written does not end the training."""
        if self._profile is None:
            return
        made, self._profile = self._profile, None
        rank = dist.get_rank()
        made.stop_trace()
        try:
            self.directory.mkdir(exist_ok=True)
            self._device.save(self.directory / f"memory-rank-{rank}.pickle")
            part = self.directory / f".rank-{rank}.json.gz"  # whole or not at all
            made.export_chrome_trace(str(part))
            os.replace(part, self.directory / f"rank-{rank}.json.gz")
        except OSError as error:
            print(f"profile: rank {rank} has written no trace: {error.strerror}; training goes on", flush=True)
        finally:
            self._device.end()

    def _started(self) -> profile:
        taken = profile(activities=self._device.activities)
        taken.prepare_trace()  # takes its time: no rank's first step is to wait for a peer that still prepares
        if dist.get_rank() == 0:
            self._forget()
        dist.barrier()
        self._device.begin()
        taken.start_trace()
        # So that a reader knows: its last step is whole, unlike that of a profiler that is stopped wherever it is.
        taken.add_metadata_json("zerofit", json.dumps({"steps": [self.first, self.last]}))
        return taken

    def _forget(self) -> None:
        """Remove the traces of an earlier window, of more ranks perhaps, and what was found in them."""
        for pattern in ("rank-*.json.gz", "memory-rank-*.pickle", "trace.json"):
            for path in self.directory.glob(pattern):
                with suppress(OSError):
                    path.unlink()


class _Cpu:
    """What is the device's own in a window: on a CPU nothing."""

    activities: Iterable[ProfilerActivity] = (ProfilerActivity.CPU,)

    def begin(self) -> None:
        """Right before the trace."""

    def save(self, snapshot: Path) -> None:
        """After the last step: write what is the device's own."""

    def end(self) -> None:
        """Record no more, whatever happened."""


class _Cuda(_Cpu):
    """Kernels are traced as well, and with `memory` allocations recorded."""

    activities = (ProfilerActivity.CPU, ProfilerActivity.CUDA)

    def __init__(self, device: torch.device, memory: bool) -> None:
        self.device, self.memory = device, memory

    def begin(self) -> None:
        if self.memory:
            torch.cuda.memory._record_memory_history(stacks="python", max_entries=ENTRIES)
        torch.cuda.synchronize(self.device)  # the trace is to begin with the window's own kernels

    def save(self, snapshot: Path) -> None:
        if self.memory:
            torch.cuda.memory._dump_snapshot(str(snapshot))

    def end(self) -> None:
        if self.memory:
            torch.cuda.memory._record_memory_history(enabled=None)
