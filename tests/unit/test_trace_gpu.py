"""What `zerofit trace` says of real traces of two NVIDIA H200s, beside sums over their kernels that are made here.

tests/unit/traces has them, of PyTorch 2.11 and DeepSpeed 0.19.8; S is ddp and zero3:

    zerofit train digits strategy=S train.max_steps=8 train.epochs=null profile.steps='[6, 6]' model.shape='{
    model_type: qwen3, hidden_size: 1024, num_hidden_layers: 1, num_attention_heads: 8, num_key_value_heads: 8,
    head_dim: 128, intermediate_size: 3072, vocab_size: 32}'
"""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Iterable
from pathlib import Path

import pytest

from zerofit.report.trace.command import analyse

pytest.importorskip("hta", reason="HTA, the extra trace")

TRACES = Path(__file__).with_name("traces")
Spans = list[tuple[float, float]]


def union(spans: Iterable[tuple[float, float]]) -> Spans:
    """The same moments, each once."""
    found: Spans = []
    for start, end in sorted(spans):
        if found and start <= found[-1][1]:
            found[-1] = found[-1][0], max(found[-1][1], end)
        else:
            found.append((start, end))
    return found


def length(spans: Iterable[tuple[float, float]]) -> float:
    return sum(end - start for start, end in union(spans))


def of_rank(path: Path) -> tuple[Spans, Spans, Spans]:
    """When something computes, communicates, and is copied on the GPU."""
    kinds: tuple[Spans, Spans, Spans] = [], [], []
    for event in json.loads(gzip.decompress(path.read_bytes()))["traceEvents"]:
        if event.get("cat") in ("kernel", "gpu_memcpy", "gpu_memset"):
            kind = 2 if event["cat"] != "kernel" else int(event["name"].startswith("nccl"))
            kinds[kind].append((event["ts"], event["ts"] + event["dur"]))
    return kinds


@pytest.fixture(params=["ddp", "zero3"])
def traces(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return Path(shutil.copytree(TRACES / request.param, tmp_path / request.param))


def test_times_are_those_of_the_kernels(traces: Path) -> None:
    found = analyse(traces)
    assert (found.device, found.steps, found.world_size, found.problems) == ("cuda", [6], 2, [])
    for rank in found.ranks:
        computing, communicating, copying = of_rank(traces / f"rank-{rank.rank}.json.gz")
        every = union([*computing, *communicating, *copying])
        both = length(computing) + length(communicating) - length([*computing, *communicating])
        assert rank.span_us == pytest.approx(every[-1][1] - every[0][0], abs=1)  # HTA rounds its sums
        assert rank.idle_us == pytest.approx(rank.span_us - length(every), abs=2)
        assert rank.compute_us == pytest.approx(length(computing), abs=1)
        assert rank.communication_us == pytest.approx(length(communicating), abs=1)
        assert rank.overlap == pytest.approx(both / length(communicating), abs=1e-3)


def test_what_it_says_of_them(traces: Path) -> None:
    collectives = {
        "ddp": {"ncclDevKernel_AllReduce_Sum_f32_RING_LL"},
        "zero3": {"ncclDevKernel_AllGather_RING_LL", "ncclDevKernel_ReduceScatter_Sum_bf16_RING_LL"},
    }
    found = analyse(traces)
    names = {kernel.name.partition("(")[0] for kernel in found.kernels}
    assert collectives[traces.name] <= names
    assert sum(entry["us"] for entry in found.idle if entry["cause"] == "host_wait") > 0.9 * sum(
        rank.idle_us for rank in found.ranks
    )
