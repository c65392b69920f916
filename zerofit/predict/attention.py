"""`scaled_dot_product_attention` on tensors without memory, by the kernels that CUDA would choose.

On fake tensors PyTorch takes the mathematical form, which keeps every pair of tokens.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

aten = torch.ops.aten
AMPERE = (8, 0)
WIDEST = 256
"""Elements of a head that FlashAttention takes."""
ALIGNED = 8
"""Elements that a row of the memory-efficient kernel's mask is a multiple of (attention.cpp, `preprocess_mask`)."""
Attention = Callable[..., Tensor]


def attention_on(capability: tuple[int, int] | None) -> Attention:
    """The function of that name, as on a GPU of this compute capability (null: of the newest).

    FlashAttention where there is no mask, in 16 bits from compute capability 8.0 on; else the memory-efficient kernel;
    the mathematical form where fewer key-value heads than heads meet a mask or an older card
    (ATen/native/transformers/cuda/sdp_utils.cpp). cuDNN's kernel keeps what FlashAttention keeps.
    """

    def attention(
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Tensor:
        query, key, value = (_cast(one) for one in (query, key, value))
        low = query.dtype in (torch.bfloat16, torch.float16)
        newer = capability is None or capability >= AMPERE
        width = query.shape[-1]
        if attn_mask is None and low and newer and width <= WIDEST and value.shape[-1] == width:
            scale = 1 / math.sqrt(width) if scale is None else scale
            padded = [F.pad(one, (0, -width % 8)) if width % 8 else one for one in (query, key, value)]
            out: Tensor = aten._scaled_dot_product_flash_attention(*padded, dropout_p, is_causal, False, scale=scale)[0]
            return out[..., :width] if width % 8 else out
        if query.shape[1] != key.shape[1]:
            return aten._scaled_dot_product_attention_math(
                query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa
            )[0]
        bias = None if attn_mask is None else _bias(attn_mask, query, key)
        kept = torch.is_grad_enabled() and any(one.requires_grad for one in (query, key, value))
        return aten._scaled_dot_product_efficient_attention(
            query, key, value, bias, kept, dropout_p, is_causal, scale=scale
        )[0]

    return attention


def _cast(tensor: Tensor) -> Tensor:
    """As autocast does, whose list has the function itself, not the kernels."""
    if torch.is_autocast_enabled("cpu") and tensor.dtype == torch.float32:
        return tensor.to(torch.get_autocast_dtype("cpu"))
    return tensor


def _bias(mask: Tensor, query: Tensor, key: Tensor) -> Tensor:
    """What is added to the products [B, H, T, S]: a tensor of the mask's own shape, its rows aligned."""
    if mask.dtype == torch.bool:
        mask = torch.where(mask, 0.0, torch.full((), -math.inf, dtype=query.dtype))
    mask = _cast(mask)
    rest = -mask.shape[-1] % ALIGNED
    if rest:
        mask = F.pad(mask, (0, rest))[..., : mask.shape[-1]]
    return mask.expand(query.shape[0], query.shape[1], query.shape[2], key.shape[2])
