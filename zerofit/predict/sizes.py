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


def written(model: nn.Module, *, fresh: bool) -> int:
    """Bytes that are there besides while `build_model` writes weights.

    Pretrained ones come from the host as they are, and `fresh` ones are drawn in float32 on the device. One that is
    packed into 4 bits is there as it came, in 16 bits, and in float32 (`PackedLinear.take`).
    """
    whole = max((layer.in_features * layer.out_features for _, layer in packed_layers(model)), default=0)
    drawn = max((parameter.numel() for parameter in model.parameters()), default=0) if fresh else 0
    return max(rounded((2 + 4) * whole), rounded(4 * drawn))
