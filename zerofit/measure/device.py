"""Datasheet rates of GPUs, the denominator of MFU."""

from __future__ import annotations

import re

import torch

_RATES: tuple[tuple[str, float, float | None, float], ...] = (
    # whole device name, TFLOP/s in float16, bfloat16, float32 (TF32 where there is TF32)
    (r"(Tesla )?V100-SXM.*", 125.0, None, 15.7),
    (r"(Tesla )?V100-PCIE.*", 112.0, None, 14.0),
    (r"(Tesla )?T4", 65.0, None, 8.1),
    (r"(GeForce )?RTX 2080 Ti", 53.8, None, 13.4),
    (r"(GeForce )?RTX 3090", 71.0, 71.0, 35.6),
    (r"(GeForce )?RTX 4090", 165.2, 165.2, 82.6),
    (r"A100[- ](?!.*MIG).*", 312.0, 312.0, 156.0),
    (r"L40S", 362.05, 362.05, 183.0),
    (r"H100 PCIe", 756.0, 756.0, 378.0),
    (r"H100 NVL", 835.5, 835.5, 417.5),
    (r"H100( 80GB HBM3)?", 989.4, 989.4, 494.7),
    (r"H200 NVL", 835.5, 835.5, 417.5),
    (r"H200", 989.4, 989.4, 494.7),
    (r"B200", 2250.0, 2250.0, 1125.0),
)


def peak_flops(name: str, dtype: torch.dtype) -> float | None:
    """FLOP/s of a GPU's dense matrix products with float32 accumulation, by the name that the driver gives it.

    float32 is TF32's rate on GPUs that have it, the plain one's on others. null: an unknown device (a CPU, a MIG slice,
    a laptop's GPU), or a type that the GPU's tensor cores lack.

    Sources, all by NVIDIA: "Tesla V100" datasheet (2018); "T4" datasheet (2019); "Turing GPU architecture" whitepaper
    (2018; reference card, FP32 accumulate); "Ampere GA102 GPU architecture" whitepaper v2 (2021; FP32 accumulate);
    "Ada GPU architecture" whitepaper v2 (2023; FP32 accumulate); "A100" datasheet (2021); "L40S" datasheet (2023);
    "H100" datasheet (2023) and "Hopper architecture" whitepaper (2022); "H200" datasheet (2024); "HGX B200" datasheet
    (2024). Rates given "with sparsity" are halved.
    """
    column = {torch.float16: 0, torch.bfloat16: 1, torch.float32: 2}.get(dtype)
    if column is None:
        return None
    bare = name.removeprefix("NVIDIA ").strip()
    for pattern, *rates in _RATES:
        if re.fullmatch(pattern, bare):
            tera = rates[column]
            return None if tera is None else tera * 1e12
    return None
