"""What a comparison, a trace and a run leave, made up: figures as of ViT-Huge on four 80 GB cards."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def comparison() -> dict[str, Any]:
    """compare.json of nine strategies: one ran out of memory, one was refused."""
    rows = [
        row("single", 1, {"weights": 2.4, "gradients": 2.4, "optimizer": 4.7, "rest": 38.1}, 88.0, 363, 371),
        row("ddp", 4, {"weights": 2.4, "gradients": 2.4, "optimizer": 4.7, "rest": 40.5}, 341.0, 374, 402),
        row("fsdp2", 4, {"weights": 0.6, "gradients": 0.6, "optimizer": 1.2, "rest": 39.7}, 318.0, 402, 446),
        row("zero1", 4, {"weights": 2.4, "gradients": 2.4, "optimizer": 1.2, "rest": 39.9}, 338.0, 378, 391),
        row("zero2", 4, {"weights": 2.4, "gradients": 0.6, "optimizer": 1.2, "rest": 40.2}, 331.0, 386, 399),
        row("zero3", 4, {"weights": 0.6, "gradients": 0.6, "optimizer": 1.2, "rest": 38.3}, 240.0, 533, 590),
        row(
            "zero3",
            4,
            {"weights": 0.6, "gradients": 0.6, "optimizer": 0.0, "rest": 37.5},
            71.0,
            1803,
            1990,
            "+offload_all",
        ),
    ]
    lost = row("zero2", 1, {}, 0.0, 0, 0)
    rows.append({**lost, "status": "out of memory", "why": "CUDA out of memory at step 1", "needed_gib": 91.2})
    refused = row("zeropp", 3, {}, 0.0, 0, 0)
    rows.append({**refused, "status": "refused", "why": "the global batch of 128 does not divide among 3 ranks"})
    return {
        "format": 1,
        "recipe": "vit-huge-food101",
        "created": "2026-11-29T01:00:00Z",
        "hardware": {"device": "cuda", "name": "NVIDIA H100 80GB HBM3", "count": 4, "memory_gib": 79.2},
        "precision": "bf16",
        "global_batch": 128,
        "steps": 60,
        "baseline": "ddp x4",
        "limit_gib": 79.2,
        "rows": rows,
        "verdict": [
            "zero2 is the fastest that leaves 20 % of the card free; ddp is 3 % faster and needs 6.1 GiB more.",
            "zero3 costs 30 % here and saves 3.7 GiB: this model fits without it.",
        ],
    }


def row(
    strategy: str, ranks: int, memory: dict[str, float], speed: float, p50: float, p99: float, offload: str = ""
) -> dict[str, Any]:
    noise = random.Random(f"{strategy}{ranks}{offload}")
    ran = bool(memory)
    peak = sum(memory.values())
    loss = [4.6 * math.exp(-step / 30) + 0.9 + 0.04 * math.sin(step) for step in range(60)]
    apart = 0.0 if strategy == "ddp" else 2e-7
    return {
        "label": f"{strategy}{offload} x{ranks}",
        "strategy": strategy,
        "offload": offload,
        "ranks": ranks,
        "run": f"{strategy}{offload}-x{ranks}",
        "status": "ok",
        "why": None,
        "needed_gib": None,
        "micro_batch": 32,
        "accumulation": 4 // ranks if ranks != 3 else 1,
        "peak_allocated_gib": peak if ran else None,
        "peak_reserved_gib": peak * 1.06 if ran else None,
        "host_gib": 31.0 * ranks if offload else 4.1 * ranks,
        "memory": memory or None,
        "samples_s": speed if ran else None,
        "samples_s_per_gpu": speed / ranks if ran else None,
        "tokens_s": None,
        "tokens_s_per_gpu": None,
        "mfu": speed / ranks / 88.0 * 0.47 if ran else None,
        "step_ms_p50": p50 if ran else None,
        "step_ms_p99": p99 if ran else None,
        "scaling_efficiency": speed / ranks / 88.0 if ran else None,
        "exposed_communication_share": 0.02 * ranks if ran else None,
        "optimizer_share": 0.05 if ran else None,
        "data_share": 0.011 if ran else None,
        "loss": [value * (1 + apart * noise.uniform(-1, 1)) for value in loss] if ran else [],
        "loss_deviation": apart if ran else None,
        "predicted_gib": peak * 0.97 if ran else 91.2,
        "max_micro_batch": 48 if ran else None,
    }


def trace(seed: int = 0, ranks: int = 8) -> dict[str, Any]:
    """trace.json of eight ranks; 0 and 6 are late."""
    noise = random.Random(seed)
    strip, every, idle = [], [], []
    for rank in range(ranks):
        spans: list[tuple[float, float, str]] = []
        at, late = 0.0, 1.35 if rank in (0, 6) else 1.0
        for layer in range(64):
            length = 2600 * late * noise.uniform(0.8, 1.2)
            spans.append((at, length, "compute"))
            if layer % 2:
                spans.append((at + 0.3 * length, 1500 * noise.uniform(0.5, 1.5), "communication"))
            if layer % 16 == 5:
                spans.append((at + length, 300, "memory"))
            at += length * noise.uniform(1.0, 1.12)
        strip.append({"rank": rank, "spans": spans})
        whole = 240_000.0
        busy = min(whole, sum(length for _, length, what in spans if what == "compute"))
        other = min(whole - busy, 9000.0)
        every.append(
            {
                "rank": rank,
                "span_us": whole,
                "compute_us": busy,
                "communication_us": 48_000.0,
                "memory_us": 1200.0,
                "exposed_communication_us": other * 0.8,
                "non_compute_us": other,
                "idle_us": max(0.0, whole - busy - other),
                "overlap": 0.84,
                "device": "cuda",
            }
        )
        left = max(0.0, whole - busy - other)
        idle += [
            {"rank": rank, "cause": cause, "us": left * share}
            for cause, share in (("host_wait", 0.7), ("kernel_wait", 0.2), ("other", 0.1))
        ]
    names = [
        ("ncclDevKernel_AllGather_RING_LL(ncclDevKernelArgsStorage<4096ul>)", "COMMUNICATION"),
        (
            "void cutlass::Kernel2<cutlass_80_tensorop_bf16_s16816gemm_relu_bf16_256x128_32x3_tn_align8>(Params)",
            "COMPUTATION",
        ),
        (
            "void at::native::vectorized_elementwise_kernel<4, at::native::GeluCUDAKernelImpl<...>>(int, char*)",
            "COMPUTATION",
        ),
        ("Memcpy DtoD (Device -> Device)", "MEMORY"),
    ]
    return {
        "format": 1,
        "source": f"runs/vit-huge-{'ab'[seed % 2]}/profile",
        "world_size": ranks,
        "steps": [3],
        "problems": ["rank 5: its trace has no record of when kernels were launched"],
        "ranks": every,
        "kinds": [
            {"kind": "COMPUTATION", "us": 1_330_000.0, "share": 0.79},
            {"kind": "COMMUNICATION", "us": 340_000.0, "share": 0.2},
            {"kind": "MEMORY", "us": 9600.0, "share": 0.01},
        ],
        "kernels": [
            {"name": name, "kind": kind, "us": 400_000.0 / (at + 1), "share": 0.3 / (at + 1), "count": 512 * (at + 1)}
            for at, (name, kind) in enumerate(names)
        ],
        "idle": idle,
        "stragglers": [0, 6],
        "launch": [{"rank": rank, "count": 5120, "short_kernels": 611, "mean_delay_us": 41.3} for rank in range(ranks)],
        "strip": strip,
        "findings": [
            "ranks 0 and 6 compute 35 % longer than the others, which wait for them in every gradient reduction"
        ],
    }


def two_traces() -> dict[str, Any]:
    """The trace.json of a comparison."""
    a, b = trace(0), trace(1)
    kernels = [{"name": one["name"], "us_a": one["us"], "us_b": one["us"] * 0.8} for one in a["kernels"]]
    return {"format": 1, "a": a, "b": b, "kernels": kernels, "findings": ["b communicates 20 % less"]}


def long_run(directory: Path, steps: int = 100_000, classes: int = 1000) -> Path:
    """A finished run of many steps and classes, with samples."""
    noise = random.Random(0)
    with (directory / "metrics.jsonl").open("w") as file:
        for step in range(1, steps + 1):
            record = {
                "step": step,
                "epoch": step / 500,
                "loss": 7 * math.exp(-step / 20_000)
                + noise.uniform(0, 0.4)
                + (40 if step == 7 * steps // 10 + 1 else 0),
                "grad_norm": noise.lognormvariate(0, 0.4),
                "lr": 1e-3 * (1 - step / steps),
                "samples_s": noise.gauss(3100, 60),
                "mfu": noise.gauss(0.44, 0.01),
                "peak_alloc_gib": 61.2,
                "peak_reserved_gib": 66.0,
                "host_rss_gib": 9.1,
                "data_wait_s": noise.expovariate(300),
                "gpu_utilisation": noise.uniform(0.95, 1.0),
                "gpu_temperature_c": 61 + noise.uniform(-2, 2),
                "gpu_power_w": noise.gauss(640, 12),
            }
            file.write(json.dumps(record) + "\n")
            if step % (steps // 20) == 0:
                share = 1 - math.exp(-step / 30_000)
                line = {"step": step, "epoch": step / 500, "val_loss": 7 - 6 * share, "val_top1": 0.8 * share}
                file.write(json.dumps({**line, "val_top5": 0.95 * share, "val_duration_s": 9.0}) + "\n")
    confusion = [[0] * classes for _ in range(classes)]
    for label in range(classes):
        for _ in range(50):
            near = noise.random() < 0.2
            confusion[label][(label // 3 * 3 + noise.randrange(3)) % classes if near else label] += 1
    (directory / "test").mkdir()
    samples = []
    for number in range(16):
        pixels = np.random.default_rng(number).integers(0, 255, (96, 96, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(directory / f"test/{number}.png")
        predicted = number if number >= 8 else number + 1
        top = [[predicted, 0.7], [(predicted + 1) % classes, 0.2]]
        samples.append({"image": f"test/{number}.png", "label": number, "predicted": predicted, "top": top})
    names = [f"class of many words {i}" for i in range(classes)]
    body = {"split": "test", "classes": names, "confusion": confusion, "samples": samples}
    (directory / "test.json").write_text(json.dumps(body))
    return directory
