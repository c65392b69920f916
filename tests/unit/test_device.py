from __future__ import annotations

import pytest
import torch

from zerofit.measure.device import peak_flops


@pytest.mark.parametrize(
    ("name", "dtype", "tera"),
    [
        ("Tesla V100-SXM2-32GB", torch.float16, 125.0),
        ("Tesla V100-PCIE-16GB", torch.bfloat16, None),
        ("Tesla T4", torch.float16, 65.0),
        ("NVIDIA GeForce RTX 2080 Ti", torch.float16, 53.8),
        ("NVIDIA GeForce RTX 4090", torch.bfloat16, 165.2),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", torch.bfloat16, None),
        ("NVIDIA A100-SXM4-80GB", torch.bfloat16, 312.0),
        ("NVIDIA A100 80GB PCIe", torch.float32, 156.0),
        ("NVIDIA A100-SXM4-40GB MIG 1g.5gb", torch.bfloat16, None),
        ("NVIDIA L40S", torch.bfloat16, 362.05),
        ("NVIDIA H100 80GB HBM3", torch.bfloat16, 989.4),
        ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", torch.bfloat16, None),
        ("NVIDIA H100 PCIe", torch.bfloat16, 756.0),
        ("NVIDIA H200", torch.bfloat16, 989.4),
        ("NVIDIA H200 NVL", torch.bfloat16, 835.5),
        ("NVIDIA B200", torch.float16, 2250.0),
        ("NVIDIA GH200 480GB", torch.bfloat16, None),
        ("AMD EPYC 7763 64-Core Processor", torch.float32, None),
        ("NVIDIA H200", torch.float64, None),
    ],
)
def test_names_as_drivers_give_them(name: str, dtype: torch.dtype, tera: float | None) -> None:
    assert peak_flops(name, dtype) == (None if tera is None else pytest.approx(tera * 1e12))
