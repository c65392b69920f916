"""One run of a comparison as plain figures, read from its run directory alone. docs/compare.md says what each is."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from zerofit.config.errors import UserError
from zerofit.config.strategy import Strategy
from zerofit.plan.files import RUN_FILE
from zerofit.plan.spec import RunSpec
from zerofit.report.exposed import share_of_trace
from zerofit.report.figures import history, logged_steps, timing
from zerofit.report.shortage import Shortage, shortage

Status = Literal["ok", "out of memory", "failed", "refused"]
WARM_UP = 5
"""Steps that are left out of the timing; of short runs a third."""


@dataclass(frozen=True)
class Row:
    """A line of a comparison, as compare.json has it. Null: there is no such figure. Memory in GiB, shares 0 to 1."""

    label: str
    strategy: str
    offload: str
    """`+offload_optimizer`, `+offload_all`, or nothing."""
    ranks: int
    run: str
    """Its run directory, relative to the comparison's."""
    status: Status = "ok"
    why: str | None = None
    """Of a run that is not ok, in one line."""
    needed_gib: float | None = None
    micro_batch: int | None = None
    accumulation: int | None = None
    peak_allocated_gib: float | None = None
    peak_reserved_gib: float | None = None
    host_gib: float | None = None
    memory: dict[str, float] | None = None
    samples_s: float | None = None
    samples_s_per_gpu: float | None = None
    tokens_s: float | None = None
    tokens_s_per_gpu: float | None = None
    mfu: float | None = None
    step_ms_p50: float | None = None
    step_ms_p99: float | None = None
    scaling_efficiency: float | None = None
    exposed_communication_share: float | None = None
    optimizer_share: float | None = None
    data_share: float | None = None
    loss: tuple[float, ...] = ()
    loss_deviation: float | None = None
    predicted_gib: float | None = None
    max_micro_batch: int | None = None

    @property
    def name(self) -> str:
        """The strategy, with its offload."""
        return self.strategy + self.offload

    @property
    def ran(self) -> bool:
        """Whether it took its steps."""
        return self.status == "ok"


def offload_of(strategy: Strategy) -> str:
    """What the short form of a strategy adds for its offload."""
    if strategy.offload.params is not None:
        return "+offload_all"
    return "+offload_optimizer" if strategy.offload.optimizer is not None else ""


def label_of(strategy: Strategy, ranks: int) -> str:
    """What a run is called in a comparison."""
    return f"{strategy.name}{offload_of(strategy)} x{ranks}"


def row_of(spec: RunSpec, beside: Path) -> Row:
    """The row of a run, whatever came of it; its directory is named relative to `beside`."""
    strategy, batches, run = spec.strategy, spec.batches, spec.run_dir
    row = Row(
        label=label_of(strategy, batches.ranks),
        strategy=strategy.name,
        offload=offload_of(strategy),
        ranks=batches.ranks,
        run=os.path.relpath(run, beside),
        micro_batch=batches.micro,
        accumulation=batches.accumulation,
        predicted_gib=_predicted(run),
    )
    result = _json(run / "result.json")
    if result.get("exit") != "finished":
        return _ended(row, run, result)
    return _measured(row, spec, result)


def _measured(row: Row, spec: RunSpec, result: dict[str, Any]) -> Row:
    lines = history(spec.run_dir) if (spec.run_dir / "metrics.jsonl").exists() else []
    steps = logged_steps(lines)
    found = timing(steady(steps, spec), spec.batches.global_batch)
    samples_s, tokens = found["samples_s"], result.get("tokens_per_sample")
    tokens_s = samples_s * tokens if samples_s is not None and tokens is not None else None
    return replace(
        row,
        peak_allocated_gib=result.get("peak_alloc_gib"),
        peak_reserved_gib=result.get("peak_reserved_gib"),
        host_gib=result.get("host_gib"),
        memory=result.get("holds"),
        samples_s=samples_s,
        samples_s_per_gpu=None if samples_s is None else samples_s / row.ranks,
        tokens_s=tokens_s,
        tokens_s_per_gpu=None if tokens_s is None else tokens_s / row.ranks,
        mfu=found["mfu"],
        step_ms_p50=found["step_ms_p50"],
        step_ms_p99=found["step_ms_p99"],
        exposed_communication_share=_exposed(spec.run_dir),
        optimizer_share=found["optimizer_share"],
        data_share=found["data_share"],
        loss=tuple(line["loss"] for line, _ in steps if "loss" in line),
    )


def steady(steps: Sequence[tuple[dict[str, Any], int]], spec: RunSpec) -> list[tuple[dict[str, Any], int]]:
    """The logged steps that count for the timing: after the warm-up, and none that was traced."""
    first, last = (0, -1) if spec.recipe.profile is None else spec.recipe.profile.steps
    untraced = [(line, count) for line, count in steps if not first <= line["step"] < last + count]
    kept = untraced[min(WARM_UP, (len(untraced) + 1) // 3) :]
    return kept or untraced


def _ended(row: Row, run: Path, result: dict[str, Any]) -> Row:
    """Of a run that did not end well."""
    if result.get("exit") != "failed":
        why = "was interrupted" if result.get("exit") == "interrupted" else "has not ended"
        return replace(row, status="failed", why=f"{why}; its directory: {os.path.relpath(run)}")
    short = _shortage(run, result)
    if short is not None:
        return replace(row, status="out of memory", why=short.words(), needed_gib=short.needed)
    said = str(result.get("error", "")).strip().splitlines() or ["ended without a word"]
    log = os.path.relpath(run / "logs" / f"rank-{result.get('rank', 0)}.log")
    return replace(row, status="failed", why=f"rank {result.get('rank', 0)}: {said[0]}; its log: {log}")


def _shortage(run: Path, result: dict[str, Any]) -> Shortage | None:
    """Of the rank that failed first, else of any: where one is out of memory another may be the first to say something.

    A message that names amounts is preferred.
    """
    records = [_json(path) for path in sorted((run / "logs").glob("rank-*.error.json"))]
    messages = [str(result.get("error", "")), *(str(record.get("message", "")) for record in records)]
    found = [short for short in map(shortage, messages) if short is not None]
    return max(found, key=lambda short: short.tried is not None) if found else None


def _exposed(run: Path) -> float | None:
    """Of rank 0."""
    path = run / "profile" / "rank-0.json.gz"
    try:
        return share_of_trace(path) if path.exists() else None
    except (UserError, OSError, KeyError):  # cut off, or of another form
        return None


def _predicted(run: Path) -> float | None:
    """The plan's prediction of the peak, where run.json holds one."""
    prediction = _json(run / RUN_FILE).get("prediction") or {}
    peak: float | None = prediction.get("peak_gib")
    return peak


def _json(path: Path) -> dict[str, Any]:
    """A file's mapping; an empty one where there is none."""
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return body if isinstance(body, dict) else {}
