"""Host memory of a run, of all its ranks together, in GiB: what processes take, and what engines keep there."""

from __future__ import annotations

from zerofit.config.strategy import ZERO_STAGE
from zerofit.plan.hardware import GIB
from zerofit.plan.states import FLOAT, Engine, Sizes

PROCESS = 2.4
"""Of a rank on a GPU: Python, torch, CUDA, DeepSpeed. Measured on H200s: 2.3 to 3.1 (docs/performance.jsonl)."""
LOADER = 0.5
"""Of a data loader's process."""


def host_gib(engine: Engine[Sizes]) -> float:
    """Of all ranks."""
    spec = engine.spec
    workers = spec.recipe.images.workers if spec.recipe.task in ("classify", "probe") else 0
    process = PROCESS + LOADER * workers
    return round(engine.ranks * (process + offloaded(engine) / GIB), 2)


def offloaded(engine: Engine[Sizes]) -> float:
    """Bytes that one rank keeps in the host's memory for its engine; of what lies on NVMe nothing.

    ZeRO: float32 masters, AdamW's two moments and float32 gradients of its share, and that in the compute type, which
    goes back (stage_1_and_2.py:937-941, stage3.py); weights in the compute type, of which ZeRO-3 holds a share. FSDP2:
    float32 weights, gradients and moments of its share.
    """
    spec, share = engine.spec, engine.trained / engine.ranks
    offload = spec.strategy.offload
    moments = 2 if spec.recipe.optimizer.name == "adamw" else 1
    found = 0.0
    if offload.optimizer == "cpu":
        found += share * FLOAT * (2 + moments) if spec.strategy.name in ZERO_STAGE else share * FLOAT * (1 + moments)
        found += share * engine.compute if engine.stage in (1, 2) else 0
    if offload.params == "cpu":
        found += engine.weights(engine.held) / engine.ranks
    return found
