"""DeepSpeed's `optimizer` and `scheduler` sections as the recipe would have them, to compare a user's with.

Neither is ever given to DeepSpeed: Trainer makes both from the recipe. Defaults are those of DeepSpeed 0.19's
FusedAdam and of its runtime/lr_schedules.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from zerofit.config.errors import UserError
from zerofit.config.optimizer import Optimizer
from zerofit.plan.batch import peak_rate
from zerofit.plan.spec import Batches

Config = dict[str, Any]

TYPES = {"adamw": ("AdamW", "Adam"), "sgd": ("SGD",), "lars": ()}
"""What DeepSpeed calls an optimizer of ours; its Adam is AdamW unless told otherwise."""
SCHEDULES = {"constant": "WarmupLR", "linear": "WarmupDecayLR", "cosine": "WarmupCosineLR"}
LEFT_OUT: Config = {
    "optimizer": {"lr": 1e-3, "betas": [0.9, 0.999], "eps": 1e-8, "weight_decay": 0.0, "adam_w_mode": True},
    "scheduler": {
        "warmup_min_lr": 0.0,
        "warmup_max_lr": 1e-3,
        "warmup_num_steps": 1000,
        "warmup_type": "log",
        "warmup_min_ratio": 0.0,
        "cos_min_ratio": 0.0001,
    },
}
"""What DeepSpeed takes where a section does not say."""
FREE = ("torch_adam", "fused")
"""Parameters that pick a kernel, not numbers."""


def sections(optimizer: Optimizer, batches: Batches) -> dict[str, Config]:
    """Both sections: `type`, a choice of names, and `params`."""
    rate = peak_rate(optimizer, batches.global_batch)
    params: Config = {"lr": rate, "weight_decay": optimizer.weight_decay}
    if optimizer.name == "adamw":
        params |= {"betas": list(optimizer.betas), "eps": optimizer.eps, "adam_w_mode": True}
    elif optimizer.name == "sgd":
        params |= {"momentum": optimizer.momentum}
    schedule: Config = {"warmup_num_steps": max(1, batches.warmup_steps), "warmup_type": "linear"}  # it refuses 0
    if optimizer.schedule == "cosine":
        schedule |= {"warmup_min_ratio": 0.0, "cos_min_ratio": 0.0}
    else:
        schedule |= {"warmup_min_lr": 0.0, "warmup_max_lr": rate}
    if optimizer.schedule != "constant":
        schedule |= {"total_num_steps": batches.total_steps}
    return {
        "optimizer": {"type": TYPES[optimizer.name], "params": params},
        "scheduler": {"type": (SCHEDULES[optimizer.schedule],), "params": schedule},
    }


def expect_agreement(name: str, user: Any, ours: Config, where: str, field: str) -> None:
    """Raise UserError unless the section `name` of a user says what the recipe does; `field` is where that says it."""
    if not isinstance(user, Mapping):
        raise UserError(f"{where}{name} must be a mapping, not {user!r}")
    params = user.get("params") or {}
    if not isinstance(params, Mapping):
        raise UserError(f"{where}{name}.params must be a mapping, not {params!r}")
    kind, kinds = user.get("type"), ours["type"]
    if kind != "auto" and str(kind).lower() not in [one.lower() for one in kinds]:
        right = " or ".join(kinds) or "one that DeepSpeed does not have"
        raise UserError(f"{where}{name}.type is {kind!r}, but by the recipe it is {right}: change {field}")
    unknown = sorted(set(user) - {"type", "params"}) or [f"params.{key}" for key in params if key not in _known(ours)]
    if unknown:
        raise UserError(
            f"{where}{name}.{unknown[0]} is nothing that the recipe has: leave it out, or say it in {field}"
        )
    for key, right in ours["params"].items():
        given = params.get(key, LEFT_OUT[name].get(key, right))
        if given == "auto" or _same(given, right):
            continue
        said = "is" if key in params else "is left out, which is"
        raise UserError(
            f"{where}{name}.params.{key} {said} {given!r}, but by the recipe it is {right!r}: change {field}"
        )


def _known(ours: Config) -> set[str]:
    return {*ours["params"], *FREE}


def _same(given: Any, right: Any) -> bool:
    if isinstance(right, list):
        return isinstance(given, list | tuple) and len(given) == len(right) and all(map(_same, given, right))
    if isinstance(right, bool | str) or isinstance(given, bool) or not isinstance(given, int | float):
        return type(given) is type(right) and bool(given == right)
    return bool(abs(given - right) <= 1e-12 * abs(right))
