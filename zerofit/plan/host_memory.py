"""Host memory of a run, of all its ranks together, in GiB: what processes take, and what engines keep there."""

from __future__ import annotations

from zerofit.plan.hardware import GIB
from zerofit.plan.states import FLOAT, SUB_GROUP, Engine, Sizes

PROCESS = 2.4
"""Of a rank on a GPU: Python, torch, CUDA, DeepSpeed. Measured on H200s: 2.3 to 2.4, 3.0 with images to decode
(docs/performance.jsonl). Loaders' processes come on top."""


def host_gib(engine: Engine[Sizes]) -> float:
    """Of all ranks."""
    return round(engine.ranks * (PROCESS + offloaded(engine) / GIB), 2)


def offloaded(engine: Engine[Sizes]) -> float:
    """Bytes that one rank keeps in the host's memory for its engine; of what lies on NVMe nothing.

    ZeRO: float32 masters and gradients of its share, AdamW's two moments, what it makes for a moment in its step (under
    ZeRO-3 of a sub-group alone), and the share in the compute type that goes back (stage_1_and_2.py:560-578, :937,
    stage3.py); weights in the compute type, of which ZeRO-3 holds a share. FSDP2: float32 weights, gradients and
    moments of its share. Page-locked memory comes in powers of two.
    """
    offload, share = engine.spec.strategy.offload, engine.trained / engine.ranks
    moments = 2 if engine.spec.recipe.optimizer.name == "adamw" else 1
    piece = share if engine.stage in (1, 2) else min(share, SUB_GROUP)
    grown = _locked(FLOAT * piece) / (FLOAT * piece) if offload.pin_memory and engine.stage and piece else 1.0
    found = 0.0
    if offload.optimizer == "cpu":
        found += share * FLOAT * (2 * grown + moments) if engine.stage else share * FLOAT * (1 + moments)
        found += share * engine.compute * grown if engine.stage else 0
        found += moments * FLOAT * piece if engine.stage else 0
    if engine.stage == 3 and not offload.params:
        found += engine.compute * share  # by way of which it cuts weights up (stage3.py, defragment)
    if offload.params == "cpu":
        found += engine.weights(engine.held) / engine.ranks * grown
    return found


def _locked(size: float) -> int:
    """Bytes that page-locked memory of `size` takes (torch's CachingHostAllocator)."""
    return 1 << (int(size) - 1).bit_length() if size >= 1 else 0
