"""Host memory as PyTorch's allocator of page-locked memory takes it."""

from __future__ import annotations


def page_locked(size: int) -> int:
    """What `size` bytes take: the next power of two (torch 2.13's include/ATen/core/CachingHostAllocator.h:302)."""
    return 1 << (size - 1).bit_length() if size else 0
