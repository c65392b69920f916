"""Traces in Kineto's form whose figures are known by construction."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

COMPUTE, REDUCE, COPY = "sgemm_128x64", "ncclDevKernel_AllReduce_Sum_f32_RING_LL", "Memcpy HtoD (Pinned -> Device)"
STREAM = {COMPUTE: 7, REDUCE: 24, COPY: 7}


class Made:
    """One rank's trace: `step` and `kernel` add to it, `write` writes it."""

    def __init__(self, rank: int | None, world: int = 2, **metadata: Any) -> None:
        told = {} if rank is None else {"distributedInfo": {"backend": "nccl", "rank": rank, "world_size": world}}
        self.metadata = {"schemaVersion": 1, **told, **metadata}
        self.events: list[dict[str, Any]] = [meta("process_name", 100, "python"), meta("process_name", 0, "python")]
        self.number = 0

    def cpu(self, name: str, start: float, length: float, category: str = "cpu_op", tid: int = 100) -> None:
        place = {"pid": 100, "tid": tid, "ts": start, "dur": length}
        self.events.append({"ph": "X", "cat": category, "name": name, **place, "args": {"External id": 1}})

    def step(self, number: int, start: float, length: float) -> None:
        self.cpu(f"ProfilerStep#{number}", start, length, "user_annotation")

    def kernel(self, name: str, start: float, length: float, launched: float, stream: int | None = None) -> None:
        """A kernel, and the call of 5 us that launched it."""
        self.number += 1
        stream, own = STREAM[name] if stream is None else stream, {"correlation": self.number}
        category = "gpu_memcpy" if name == COPY else "kernel"
        call = "cudaMemcpyAsync" if name == COPY else "cudaLaunchKernel"
        launch = {"pid": 100, "tid": 100, "ts": launched, "dur": 5, "args": own}
        flow = {"id": self.number, "cat": "ac2g", "name": "ac2g"}
        on_gpu = {"pid": 0, "tid": stream, "ts": start, "dur": length}
        args = {**own, "stream": stream, "device": 0}
        self.events += [
            {"ph": "X", "cat": "cuda_runtime", "name": call, **launch},
            {"ph": "X", "cat": category, "name": name, **on_gpu, "args": args},
            {"ph": "s", "pid": 100, "tid": 100, "ts": launched, **flow},
            {"ph": "f", "pid": 0, "tid": stream, "ts": start, "bp": "e", **flow},
        ]

    def write(self, path: Path) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps({**self.metadata, "traceEvents": self.events}, indent=2)
        path.write_bytes(gzip.compress(text.encode()) if path.name.endswith(".gz") else text.encode())
        return path


def meta(name: str, pid: int, value: str) -> dict[str, Any]:
    return {"ph": "M", "name": name, "pid": pid, "tid": 0, "ts": 0, "args": {"name": value}}


def two_ranks(directory: Path, steps: Sequence[int] = (3,), **metadata: Any) -> Path:
    """Two ranks on GPUs; rank 1's computation takes 600 us longer, and rank 0 waits for it in the all-reduce.

    By step, in us, rank 0: span 2000, compute 500, communication 1400 of which 100 lie under computation, copies 50,
    idle 150 (100 of it host wait, 20 kernel wait, 30 other). Rank 1: compute 1100, communication 700 of which 100 lie
    under computation, copies 50, idle 250, all of it host wait.
    """
    for rank in range(2):
        made = Made(rank, **metadata)
        for place, step in enumerate(steps):
            at = 1_000_000 + 3000 * place
            made.step(step, at, 2500)
            made.cpu("aten::mm", at + 50, 200)
            (first if rank == 0 else second)(made, at + 100)
        made.write(directory / f"rank-{rank}.json.gz")
    return directory


def first(made: Made, at: float) -> None:
    made.kernel(COPY, at, 50, launched=at - 20)
    made.kernel(COMPUTE, at + 70, 200, launched=at - 10)  # 20 after the copy, which was launched in time: kernel wait
    made.kernel(COMPUTE, at + 300, 200, launched=at)  # 30 later: other
    made.kernel(REDUCE, at + 600, 1400, launched=at + 590)  # launched 90 after the last one's end: host wait, 100
    made.kernel(COMPUTE, at + 1000, 100, launched=at + 600)


def second(made: Made, at: float) -> None:
    made.kernel(COPY, at, 50, launched=at - 20)
    made.kernel(COMPUTE, at + 150, 1000, launched=at + 140)  # 100 after the copy: host wait
    made.kernel(REDUCE, at + 1300, 700, launched=at + 1290)  # 150 after it: host wait
    made.kernel(COMPUTE, at + 1400, 100, launched=at + 1300)


def on_cpu(directory: Path) -> Path:
    """Two ranks on CPUs. Of 1000 us rank 0 is 600 in operators and 300 in gloo, 100 of them in both; rank 1 800, 0."""
    one, other = Made(0), Made(1)
    for made in (one, other):
        made.metadata["distributedInfo"]["backend"] = "gloo"  # type: ignore[index]
        made.step(5, 2000, 1000)
    one.cpu("aten::linear", 2000, 400)
    one.cpu("aten::addmm", 2100, 250)  # inside of the one above
    one.cpu("c10d::allreduce_", 2450, 20)  # hands it over: no operator that computes
    one.cpu("aten::add", 2500, 200)
    one.cpu("aten::add", 2500, 900, tid=101)  # not the main thread's
    one.cpu("gloo:all_reduce", 2600, 300, "user_annotation", tid=102)
    other.cpu("aten::linear", 2100, 800)
    for made, name in ((one, "a"), (other, "b")):
        made.write(directory / f"{name}.pt.trace.json")
    return directory
