"""What kernels allocate for themselves, while they run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

from torch import Tensor

from zerofit.models.quantised import BLOCK

HOPPER = (9, 0)


def _up(size: int, to: int) -> int:
    return -(-size // to) * to


def flash_backward(_: Tensor, query: Tensor, key: Tensor, *__: Any) -> int:
    """FlashAttention-2's: the query's gradient and the rows' sums in float32, keys' and values' gradients a head.

    query [B, H, T, D], key [B, K, S, D] (csrc/flash_attn/flash_api.cpp, `mha_bwd`: dq_accum, softmax_d, dk_expanded).
    """
    batch, heads, length, width = query.shape
    rows = batch * heads * _up(length, 128)
    expanded = 2 * batch * heads * key.shape[2] * width * key.itemsize if key.shape[1] != heads else 0
    return 4 * rows * _up(width, 32) + 4 * rows + expanded


def dequantised(x: Tensor, _: Tensor, shape: Sequence[int], *__: Any) -> int:
    """bitsandbytes' of a product with a matrix in 4 bits: the matrix in the type of `x`, and its scales in float32.

    Twice the scales: without their offset, and with it (backends/cuda/ops.py, `_dequant_linear_fallback`; a kernel that
    needs neither is taken for a few tokens alone).
    """
    elements = prod(shape)
    return elements * x.itemsize + 2 * 4 * elements // BLOCK


def multiplying(capability: tuple[int, int] | None) -> int:
    """What cuBLAS and cuBLASLt are given once, on a GPU of this compute capability (null: of a newer one).

    32 MiB each from 9.0 on, else 8.125 and 1 MiB (ATen/cuda/CublasHandlePool.cpp).
    """
    return 64 * 2**20 if capability is None or capability >= HOPPER else 9 * 2**20 + 2**17


WORKSPACES: dict[str, Callable[..., int]] = {
    "aten::_scaled_dot_product_flash_attention_backward": flash_backward,
    "bitsandbytes::gemm_4bit": dequantised,
}
"""Bytes by operation, as a function of its arguments."""
