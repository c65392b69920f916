"""Exposed communication: arithmetic of intervals, and traces as a GPU and a CPU give them."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zerofit.report.exposed import exposed_share, share_of_trace
from zerofit.report.trace import spans

TIMES = st.integers(0, 30)
INTERVALS = st.lists(st.tuples(TIMES, TIMES).map(lambda pair: (float(min(pair)), float(max(pair)))), max_size=8)


def moments(intervals: list[tuple[float, float]]) -> set[int]:
    """The unit steps that they cover."""
    return {step for begin, end in intervals for step in range(int(begin), int(end))}


def spans_of(intervals: list[tuple[float, float]]) -> spans.Spans:
    return spans.union([begin for begin, _ in intervals], [end - begin for begin, end in intervals])


@given(INTERVALS, INTERVALS, INTERVALS)
def test_exposed_is_what_is_communication_alone(window: list[Any], sent: list[Any], computed: list[Any]) -> None:
    share, inside = exposed_share(*map(spans_of, (window, sent, computed))), moments(window)
    if not inside:
        assert share is None
    else:
        assert share == pytest.approx(len((inside & moments(sent)) - moments(computed)) / len(inside))


def trace(path: Path, *events: tuple[str, str, int, float, float]) -> Path:
    """A file with events (category, name, thread, begin, end)."""
    body = [
        {"ph": "X", "cat": kind, "name": name, "pid": 1, "tid": thread, "ts": begin, "dur": end - begin}
        for kind, name, thread, begin, end in events
    ]
    with gzip.open(path, "wt") as file:
        json.dump({"traceEvents": [*body, {"ph": "M", "name": "process_name"}]}, file)
    return path


def test_on_a_gpu_kernels_count(tmp_path: Path) -> None:
    path = trace(
        tmp_path / "rank-0.json.gz",
        ("user_annotation", "ProfilerStep#3", 1, 0, 1000),
        ("kernel", "ampere_gemm", 7, 100, 150),
        ("kernel", "ncclDevKernel_AllReduce_Sum_f32_RING_LL(ncclDevKernelArgsStorage<4096ul>)", 20, 140, 180),
        ("gpu_memcpy", "Memcpy DtoH", 7, 150, 180),
        ("kernel", "adam", 7, 180, 200),
    )
    assert share_of_trace(path) == pytest.approx(30 / 100)


def test_on_a_cpu_the_thread_that_steps_waits_for_gloo(tmp_path: Path) -> None:
    path = trace(
        tmp_path / "rank-0.json.gz",
        ("user_annotation", "ProfilerStep#3", 1, 0, 100),
        ("user_annotation", "ProfilerStep#4", 1, 120, 220),
        ("cpu_op", "aten::mm", 1, 10, 50),
        ("cpu_op", "aten::mm", 2, 60, 70),  # another thread
        ("cpu_op", "c10d::allreduce_", 1, 45, 80),
        ("user_annotation", "gloo:all_reduce", 5, 40, 80),
        ("user_annotation", "gloo:all_gather", 6, 95, 130),  # 20 of it between the steps
    )
    assert share_of_trace(path) == pytest.approx((30 + 5 + 10) / 200)


def test_a_trace_without_steps_tells_nothing(tmp_path: Path) -> None:
    assert share_of_trace(trace(tmp_path / "t.gz", ("cpu_op", "aten::mm", 1, 0, 5))) is None
