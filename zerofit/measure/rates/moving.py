"""How fast a device copies, runs small kernels, and exchanges with its host, and the host with its drive."""

from __future__ import annotations

import os
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import torch

from zerofit.measure.rates.stopwatch import seconds

MIB = 2**20
SMALL = 1024
"""Elements of an operation whose work does not count."""
GRAPH = 200
"""Kernels of a captured graph."""


def memory_rate(device: torch.device, mib: int, budget: float) -> float:
    """Bytes a second that a copy of `mib` MiB reads and writes, together."""
    source = torch.ones(mib * MIB, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * mib * MIB / seconds(lambda: target.copy_(source), device, budget)


def kernel_seconds(device: torch.device, budget: float) -> float:
    """Of a small kernel among others of a captured CUDA graph: without its launch by the host."""
    small = torch.ones(SMALL, device=device)
    graph, stream = torch.cuda.CUDAGraph(), torch.cuda.Stream(device)
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(stream):
        small.add_(1)  # to warm up, as capturing wants it
    torch.cuda.current_stream(device).wait_stream(stream)
    with torch.cuda.graph(graph):
        for _ in range(GRAPH):
            small.add_(1)
    return seconds(graph.replay, device, budget) / GRAPH


def pcie_rates(device: torch.device, mib: int, budget: float) -> tuple[float, float]:
    """Bytes a second from page-locked host memory to the GPU, and back."""
    host = torch.ones(mib * MIB, dtype=torch.uint8, pin_memory=True)
    there = torch.empty(mib * MIB, dtype=torch.uint8, device=device)
    up = seconds(lambda: there.copy_(host, non_blocking=True), device, budget)
    down = seconds(lambda: host.copy_(there, non_blocking=True), device, budget)
    return mib * MIB / up, mib * MIB / down


def disk_rates(directory: Path, mib: int) -> tuple[float, float] | None:
    """Bytes a second that a new file of `mib` MiB is written and flushed with, and read again past the page cache.

    Null where the drive has no room. The file is gone afterwards.
    """
    block = os.urandom(MIB)  # a drive that compresses must not win
    handle, name = -1, ""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=".speed.", dir=directory)
        started = time.perf_counter()
        for _ in range(mib):
            os.write(handle, block)
        os.fsync(handle)
        written = time.perf_counter() - started
        with suppress(AttributeError, OSError):  # macOS, and file systems that keep what they like
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        os.lseek(handle, 0, os.SEEK_SET)
        started = time.perf_counter()
        while os.read(handle, MIB):
            pass
        return mib * MIB / written, mib * MIB / (time.perf_counter() - started)
    except OSError:
        return None
    finally:
        if handle >= 0:
            os.close(handle)
            Path(name).unlink(missing_ok=True)
