"""What came of a finished run, as plain values. Reads its run directory alone."""

from __future__ import annotations

import json
import math
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
    lines = [line for line in history(run_dir) if "samples_s" in line]
    steps = [line["step"] - last for line, last in zip(lines, [0, *(line["step"] for line in lines)], strict=False)]
    first = 1 if len(lines) > 1 else 0
    lines, steps = lines[first:], steps[first:]
    times = [global_batch / line["samples_s"] for line in lines]  # seconds of one step
    mfu = [line["mfu"] for line in lines if line.get("mfu") is not None]
    waited = sum(line.get("data_wait_s", 0.0) for line in lines)
    whole = sum(time * count for time, count in zip(times, steps, strict=True))
    result = _result(run_dir)
    return {
        "step_ms_p50": 1000 * quantile(times, 0.5) if times else None,
        "step_ms_p99": 1000 * quantile(times, 0.99) if times else None,
        "data_wait_share": waited / whole if times else None,
        "peak_allocated_gib": result.get("peak_alloc_gib"),
        "peak_reserved_gib": result.get("peak_reserved_gib"),
        "mfu": quantile(mfu, 0.5) if mfu else None,
    }


def quantile(values: list[float], share: float) -> float:
    """The smallest of `values` that at least `share` of them do not exceed."""
    return sorted(values)[math.ceil(share * len(values)) - 1]


def _result(run_dir: Path) -> dict[str, Any]:
    body: dict[str, Any] = json.loads((run_dir / "result.json").read_text(encoding="utf-8"))
    return body
