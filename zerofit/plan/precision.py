"""Compute precision: what `strategy.precision: auto` becomes, and what a device cannot do."""

from __future__ import annotations

from typing import Literal

from zerofit.config.errors import UserError
from zerofit.plan.spec import Hardware

Precision = Literal["bf16", "fp16", "fp32"]
AMPERE = (8, 0)  # the first compute capability with bfloat16 matrix units


def resolve_precision(asked: Literal["auto", "bf16", "fp16", "fp32"], hardware: Hardware) -> Precision:
    """The precision to compute in. Raises UserError for one that the device cannot do.

    auto is fp32 on CPU, fp16 below compute capability 8.0, and bf16 from there on.
    """
    capability = hardware.capability
    if asked == "auto":
        if hardware.device == "cpu":
            return "fp32"
        return "fp16" if capability is not None and capability < AMPERE else "bf16"
    if asked == "fp16" and hardware.device == "cpu":
        raise UserError("strategy.precision fp16 needs a GPU: CPUs compute it in no useful way; use fp32 or bf16")
    if asked == "bf16" and capability is not None and capability < AMPERE:
        raise UserError(
            f"strategy.precision bf16 needs compute capability 8.0, and {hardware.name} has "
            f"{capability[0]}.{capability[1]}; use fp16 or fp32"
        )
    return asked
