from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import torch

from zerofit.measure.gauges import GIB, Card, Gauges, open_card


class NVMLError(Exception):
    pass


class Nvml(SimpleNamespace):
    """Stands in for the module pynvml: one GPU, which tells `watts` or refuses to."""

    NVMLError = NVMLError
    NVML_TEMPERATURE_GPU = 0
    utilisation, watts = 50, 300.0

    def nvmlInit(self) -> None:
        pass

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:
        if uuid != "GPU-1":
            raise NVMLError("Not Found")
        return uuid

    def nvmlDeviceGetUtilizationRates(self, handle: str) -> Any:
        return SimpleNamespace(gpu=self.utilisation)

    def nvmlDeviceGetTemperature(self, handle: str, sensor: int) -> int:
        return 61

    def nvmlDeviceGetPowerUsage(self, handle: str) -> int:
        if self.watts < 0:
            raise NVMLError("Not Supported")
        return int(self.watts * 1000)


def test_a_card_is_told_in_shares_degrees_and_watts_and_leaves_out_what_it_does_not_tell() -> None:
    nvml = Nvml()
    assert Card("GPU-1", nvml).read() == {"gpu_utilisation": 0.5, "gpu_temperature_c": 61.0, "gpu_power_w": 300.0}
    nvml.watts = -1.0
    assert Card("GPU-1", nvml).read() == {"gpu_utilisation": 0.5, "gpu_temperature_c": 61.0}
    with pytest.raises(NVMLError):
        Card("GPU-2", nvml)


def test_figures_are_means_since_they_were_last_asked_for_and_else_the_last() -> None:
    nvml = Nvml()
    gauges = Gauges(Card("GPU-1", nvml))
    for nvml.utilisation in (20, 40, 90):
        gauges.sample()
    assert gauges.figures()["gpu_utilisation"] == 0.5
    assert gauges.figures()["gpu_utilisation"] == 0.9
    nvml.utilisation = 10
    gauges.sample()
    assert gauges.figures()["gpu_utilisation"] == 0.1


def test_on_a_cpu_there_is_the_hosts_memory_alone_sampled_by_a_thread() -> None:
    gauges = Gauges(open_card(torch.device("cpu")), every=0.0)
    gauges.start()
    figures = gauges.figures()
    gauges.close()
    assert figures.keys() == {"host_used_gib"}
    assert 0 < figures["host_used_gib"] < psutil.virtual_memory().total / GIB


def test_without_a_driver_there_is_no_card() -> None:
    import pynvml

    with pytest.raises(pynvml.NVMLError):
        Card("GPU-1", pynvml)
