"""How many bytes a device's allocator counts for tensors."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor, nn

from zerofit.models.quantised import packed_layers, scale_tensors

BLOCK = 512
"""Bytes that CUDA's caching allocator rounds up to (c10/cuda/CUDACachingAllocator.cpp, kMinBlockSize)."""


def rounded(size: int) -> int:
    """What is allocated for `size` bytes."""
    return -(-size // BLOCK) * BLOCK


def bytes_of(tensors: Iterable[Tensor]) -> int:
    """What is allocated for tensors, each by itself."""
    return sum(rounded(tensor.numel() * tensor.itemsize) for tensor in tensors)


def weights_of(model: nn.Module) -> int:
    """Bytes of all parameters and buffers as they are, each once, and of what unpacks a 4-bit base."""
    return bytes_of(model.parameters()) + bytes_of(model.buffers()) + bytes_of(scale_tensors(model))


def written(model: nn.Module) -> int:
    """Bytes that are there besides while `build_model` writes pretrained weights, which come from the host as they are.

    One that is packed into 4 bits is there as it came, in 16 bits, and in float32 (`PackedLinear.take`).
    """
    whole = (layer.in_features * layer.out_features for _, layer in packed_layers(model))
    return rounded((2 + 4) * max(whole, default=0))
