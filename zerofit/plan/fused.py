"""Whether AdamW is torch's fused one, which reads and writes each number once and makes nothing beside them.

torch's default on CUDA works on lists (`foreach`), and holds the root of all second moments of a group at once: 4 bytes
for each element that it steps (torch 2.13, optim/adam.py, `_multi_tensor_adam`: `exp_avg_sq_sqrt`).
"""

from __future__ import annotations

from zerofit.plan.spec import RunSpec

DEVICES = {"cuda"}
"""Kinds of device where it is. A CPU has its kernel too, but runs there keep their numbers bit for bit."""


def is_fused(spec: RunSpec, device: str) -> bool:
    """Of ranks whose devices are of this kind. State that is offloaded is stepped on the host."""
    offloaded = spec.strategy.offload.optimizer is not None
    return spec.recipe.optimizer.name == "adamw" and not offloaded and device in DEVICES
