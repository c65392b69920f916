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
    """Bytes that are there besides while `build_model` writes its largest parameter: the whole value in float32.

    A matrix that is packed into 4 bits is there as it came, in float32, and packed (`PackedLinear.take`).
    """
    packed = {layer.weight: layer.in_features * layer.out_features for _, layer in packed_layers(model)}
    plain = max((parameter.numel() for parameter in model.parameters() if parameter not in packed), default=0)
    return rounded(max(4 * plain, 2 * 4 * max(packed.values(), default=0)))
