from __future__ import annotations

import sys

import pytest
import torch

from zerofit.measure.memory import GIB, Peak, host_peak


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the peak cannot be reset")
def test_host_peak_holds_what_was_freed_until_it_is_reset() -> None:
    size = 256 * 2**20
    peak = Peak(torch.device("cpu"))
    before = host_peak()
    block = bytearray(b"x" * size)
    del block
    assert peak.figures().keys() == {"host_rss_gib"}
    held = peak.figures()["host_rss_gib"]
    assert held >= before / GIB + 0.2
    peak.reset()
    assert peak.figures()["host_rss_gib"] < held - 0.2


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the peak cannot be reset")
def test_figures_that_are_held_do_not_grow_until_they_go_on() -> None:
    peak = Peak(torch.device("cpu"))
    peak.hold()
    held = peak.figures()
    block = bytearray(b"x" * 256 * 2**20)
    del block
    assert peak.figures() == held
    assert host_peak() / GIB > held["host_rss_gib"] + 0.1
    peak.go_on()
    assert held["host_rss_gib"] <= peak.figures()["host_rss_gib"] < held["host_rss_gib"] + 0.1
    block = bytearray(b"x" * 256 * 2**20)
    del block
    assert peak.figures()["host_rss_gib"] > held["host_rss_gib"] + 0.1


@pytest.mark.gpu
def test_cuda_peaks() -> None:
    peak = Peak(torch.device("cuda", 0))
    block = torch.zeros(2**28, dtype=torch.uint8, device="cuda")
    del block
    figures = peak.figures()
    assert figures["peak_reserved_gib"] >= figures["peak_alloc_gib"] >= 0.25
    peak.reset()
    assert peak.figures()["peak_alloc_gib"] < figures["peak_alloc_gib"]
