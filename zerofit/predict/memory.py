"""`predict_memory`: how much of a device's memory a run will take at its fullest moment, and what for."""

from __future__ import annotations

from zerofit.plan.hardware import GIB
from zerofit.plan.prediction import Memory
from zerofit.plan.spec import RunSpec
from zerofit.predict.playing import play

PROCESS_GIB = 2.4
"""Host memory of a rank's process with CUDA's context and libraries, GiB: `host_rss_gib` of runs on H200s whose engines
keep nothing there (docs/performance.jsonl: 2.30 to 2.44 with torch 2.11)."""


def predict_memory(spec: RunSpec) -> Memory:
    """Of the rank that needs most. Raises UserError as `build_model` does."""
    books = play(spec)
    phase, moment = books.device.fullest
    _, host = books.host.fullest
    return Memory(
        peak_gib=_gib(moment.total),
        phase=phase,
        split={kind: _gib(size) for kind, size in moment.split.items()},
        phases={name: _gib(found.total) for name, found in books.device.peaks.items()},
        host_gib=round(spec.batches.ranks * (PROCESS_GIB + host.total / GIB), 4),
        exact=True,
        not_modelled=(),
    )


def _gib(size: int) -> float:
    return round(size / GIB, 4)
