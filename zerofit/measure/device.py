"""Datasheet rates of GPUs, the denominator of MFU."""

from __future__ import annotations

import torch

from zerofit.plan.cards import card_of


def peak_flops(name: str, dtype: torch.dtype) -> float | None:
    """FLOP/s of a GPU's dense matrix products with float32 accumulation, by the name that the driver gives it.

    float32 is TF32's rate on GPUs that have it, the plain one's on others. null: an unknown device (a CPU, a MIG slice,
    a laptop's GPU), or a type that the GPU's tensor cores lack. Sources: zerofit.plan.cards.
    """
    card = card_of(name)
    if card is None:
        return None
    tera = {torch.float16: card.fp16, torch.bfloat16: card.bf16, torch.float32: card.fp32}.get(dtype)
    return None if tera is None else tera * 1e12
