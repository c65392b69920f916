"""What the machine does meanwhile: this rank's GPU, as NVML sees it, and the host's memory; sampled by a thread."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import psutil
import torch

from zerofit.measure.memory import GIB

EVERY = 1.0
"""Seconds between two samples."""


class Card:
    """One GPU. Raises what NVML raises where it is not there, or does not know the GPU."""

    def __init__(self, uuid: str, nvml: Any) -> None:
        self.nvml = nvml
        nvml.nvmlInit()
        self._handle = nvml.nvmlDeviceGetHandleByUUID(uuid)

    def read(self) -> dict[str, float]:
        """gpu_utilisation (share of the time in which a kernel ran, 0..1), gpu_temperature_c, gpu_power_w.

        What this GPU does not tell is left out.
        """
        nvml, figures = self.nvml, dict[str, float]()
        asked: tuple[tuple[str, Callable[[], float]], ...] = (
            ("gpu_utilisation", lambda: nvml.nvmlDeviceGetUtilizationRates(self._handle).gpu / 100),
            (
                "gpu_temperature_c",
                lambda: float(nvml.nvmlDeviceGetTemperature(self._handle, nvml.NVML_TEMPERATURE_GPU)),
            ),
            ("gpu_power_w", lambda: nvml.nvmlDeviceGetPowerUsage(self._handle) / 1000),
        )
        for name, ask in asked:
            try:
                figures[name] = ask()
            except nvml.NVMLError:
                continue
        return figures


def open_card(device: torch.device) -> Card | None:
    """The GPU of a rank, by its UUID: NVML's numbers are not CUDA's. None on a CPU, and where NVML is not there."""
    if device.type != "cuda":
        return None
    import pynvml

    try:
        return Card(f"GPU-{torch.cuda.get_device_properties(device).uuid}", pynvml)
    except pynvml.NVMLError:
        return None  # no driver's library, or a slice of a GPU (MIG), which tells nothing of itself


class Gauges:
    """Means since they were last asked for: host_used_gib (GiB of this host in use, by whomever) and the card's.

    Of rank 0's own card: the ranks' work is the same. Nothing waits for the GPU, and a sample takes no lock that a step
    needs. `card` is null on a CPU.
    """

    def __init__(self, card: Card | None, every: float = EVERY) -> None:
        self.card, self.every = card, every
        self._lock = threading.Lock()
        self._samples: list[dict[str, float]] = []
        self._last: dict[str, float] = {}
        self._closed = threading.Event()

    def start(self) -> None:
        """Sample until closed."""
        self.sample()
        threading.Thread(target=self._run, name="gauges", daemon=True).start()

    def close(self) -> None:
        """Sample no more."""
        self._closed.set()

    def figures(self) -> dict[str, float]:
        """The means; where there was no sample since, the last one's."""
        with self._lock:
            samples, self._samples = self._samples or [self._last], []
        names = dict.fromkeys(name for sample in samples for name in sample)
        every = {name: [sample[name] for sample in samples if name in sample] for name in names}
        return {name: round(sum(values) / len(values), 4) for name, values in every.items()}

    def sample(self) -> None:
        """Read everything once."""
        read: dict[str, float] = {}
        with suppress(OSError):  # a sandbox that hides it
            memory = psutil.virtual_memory()
            read["host_used_gib"] = (memory.total - memory.available) / GIB
        if self.card is not None:
            read |= self.card.read()
        with self._lock:
            self._samples.append(read)
            self._last = read

    def _run(self) -> None:
        while not self._closed.wait(self.every):
            self.sample()
