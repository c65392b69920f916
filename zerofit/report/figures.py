"""What came of a finished run, as plain values. Reads its run directory alone."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def figures(run_dir: Path) -> dict[str, Any]:
    """The result of a run that has finished, and every line of its metrics.jsonl.

    accuracy and top5 (fractions) and loss over the test split; peak_memory_gib (largest over ranks), samples_per_second
    (of all ranks), wall_seconds, steps; history. None where the task does not report a figure.
    """
    result = _result(run_dir)
    test = result.get("test", {})
    return {
        "accuracy": test.get("top1"),
        "top5": test.get("top5"),
        "loss": test.get("loss"),
        "peak_memory_gib": result.get("peak_alloc_gib"),
        "samples_per_second": result.get("samples_s"),
        "wall_seconds": result.get("wall_s"),
        "steps": result.get("steps"),
        "run_dir": str(run_dir),
        "history": history(run_dir),
    }


def history(run_dir: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl: optimizer steps have `loss`, validations `val_loss`."""
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


def profile(run_dir: Path, global_batch: int) -> dict[str, float | None]:
    """Where the time and the memory of a run of `global_batch` samples a step went.

    step_ms_p50 and step_ms_p99 of the logged steps but the first, which warms up; data_wait_share, the part of that
    time that rank 0 spent waiting for data; mfu, the median; peaks in GiB, largest over ranks. None where there is
    none: on a CPU mfu and peak_reserved_gib (and peak_allocated_gib is the process's resident memory there).
    """
    steps = logged_steps(history(run_dir))
    steady = steps[1:] or steps
    found, result = timing(steady, global_batch), _result(run_dir)
    return {
        "step_ms_p50": found["step_ms_p50"],
        "step_ms_p99": found["step_ms_p99"],
        "data_wait_share": found["data_share"],
        "peak_allocated_gib": result.get("peak_alloc_gib"),
        "peak_reserved_gib": result.get("peak_reserved_gib"),
        "mfu": found["mfu"],
    }


def logged_steps(lines: Sequence[dict[str, Any]]) -> list[tuple[dict[str, Any], int]]:
    """The lines of optimizer steps, each with how many steps it is of."""
    lines = [line for line in lines if "samples_s" in line]
    before = [0, *(line["step"] for line in lines)]
    return [(line, line["step"] - last) for line, last in zip(lines, before, strict=False)]


def timing(steps: Sequence[tuple[dict[str, Any], int]], global_batch: int) -> dict[str, float | None]:
    """Of these steps: step_ms_p50, step_ms_p99, samples_s (of all ranks), mfu (median), and shares of rank 0's time.

    data_share: waiting for data; optimizer_share: in the optimizer's step. None where the lines do not say.
    """
    times = [global_batch / line["samples_s"] for line, _ in steps]  # seconds of one step
    whole = sum(time * count for time, (_, count) in zip(times, steps, strict=True))

    mfu = [line["mfu"] for line, _ in steps if line.get("mfu") is not None]

    def share(name: str) -> float | None:
        parts = [line[name] for line, _ in steps if name in line]
        return sum(parts) / whole if parts and len(parts) == len(steps) else None

    return {
        "step_ms_p50": 1000 * quantile(times, 0.5) if times else None,
        "step_ms_p99": 1000 * quantile(times, 0.99) if times else None,
        "samples_s": global_batch * sum(count for _, count in steps) / whole if times else None,
        "mfu": quantile(mfu, 0.5) if mfu else None,
        "data_share": share("data_wait_s"),
        "optimizer_share": share("optimizer_s"),
    }


def quantile(values: list[float], share: float) -> float:
    """The smallest of `values` that at least `share` of them do not exceed."""
    return sorted(values)[math.ceil(share * len(values)) - 1]


def _result(run_dir: Path) -> dict[str, Any]:
    body: dict[str, Any] = json.loads((run_dir / "result.json").read_text(encoding="utf-8"))
    return body
