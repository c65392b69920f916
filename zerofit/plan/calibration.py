"""What `zerofit doctor --calibrate` has measured of a GPU type: the format of a file, and what the planner takes of it.

Rates of products and attention are TFLOP/s, others GB/s (10^9 bytes a second), memory is in GiB, time in seconds.
"""

from __future__ import annotations

from datetime import date
from typing import Literal

from pydantic import Field

from zerofit.config.section import Section


class Product(Section):
    """A linear layer's matrix product: [tokens, inputs] times [inputs, outputs]."""

    tokens: int = Field(ge=1)
    """Rows of what goes in."""
    inputs: int = Field(ge=1)
    """Columns of what goes in."""
    outputs: int = Field(ge=1)
    """Columns of what comes out."""
    tera: float = Field(gt=0)
    """TFLOP/s, a multiplication and an addition counted as two."""

    @property
    def flops(self) -> float:
        """Floating-point operations."""
        return 2.0 * self.tokens * self.inputs * self.outputs


class Attention(Section):
    """`scaled_dot_product_attention` without a mask, in the lowest precision that the card has."""

    batch: int = Field(ge=1)
    """Sequences."""
    heads: int = Field(ge=1)
    """Heads of queries, keys and values."""
    tokens: int = Field(ge=1)
    """Of a sequence."""
    width: int = Field(ge=1)
    """Elements of a head."""
    forward_tera: float = Field(gt=0)
    """TFLOP/s of the forward pass: two products, each of 2 x batch x heads x tokens^2 x width operations."""
    backward_tera: float = Field(gt=0)
    """The same of the backward pass: five such products, for it computes one of the forward's anew."""

    @property
    def forward_flops(self) -> float:
        """Floating-point operations of the forward pass."""
        return 4.0 * self.batch * self.heads * self.tokens**2 * self.width

    @property
    def backward_flops(self) -> float:
        """Of the backward pass."""
        return 2.5 * self.forward_flops


class Message(Section):
    """Collectives on a buffer of one size: what each rank sends, by NCCL's convention of a bus bandwidth."""

    mib: float = Field(gt=0)
    """Of the whole buffer."""
    all_reduce: float = Field(gt=0)
    """GB/s = 2 (ranks - 1) / ranks x size / time."""
    all_gather: float = Field(gt=0)
    """GB/s = (ranks - 1) / ranks x size / time."""
    reduce_scatter: float = Field(gt=0)
    """The same."""

    @property
    def slowest(self) -> float:
        """Of the three, so that no strategy is promised more than it gets."""
        return min(self.all_reduce, self.all_gather, self.reduce_scatter)


class Links(Section):
    """Between so many ranks of one host."""

    measured: date
    """When."""
    backend: Literal["nccl", "gloo"]
    """By which library."""
    messages: tuple[Message, ...] = Field(min_length=1)
    """By size, the smallest first."""
    communicators_gib: float | None = Field(default=None, ge=0)
    """GiB of a card that two communicators take (the world's, and DeepSpeed's copy of it); null: not known."""


class Calibration(Section):
    """Of a GPU type, or of a CPU."""

    version: Literal[2] = 2
    """Version of this format, and of what is measured."""
    name: str
    """As the driver calls it."""
    device: Literal["cpu", "cuda"]
    """Kind of device."""
    memory_gib: float
    """Of one device."""
    measured: date
    """When."""
    versions: dict[str, str]
    """Of the libraries that it was measured with, and of the driver."""
    products: dict[Literal["bf16", "fp16", "fp32"], tuple[Product, ...]]
    """By precision."""
    attention: tuple[Attention, ...] = ()
    """By shape."""
    memory: float = Field(gt=0)
    """GB/s that the device's memory is read and written with, in a copy."""
    kernel_s: float | None = Field(default=None, gt=0)
    """Seconds of the shortest kernel, among others of a captured graph; null on a CPU."""
    launch_s: float = Field(gt=0)
    """Seconds that the host takes for an operation of a model, with the Python of its modules."""
    pcie_up: float | None = Field(default=None, gt=0)
    """GB/s from page-locked host memory to the GPU; null on a CPU."""
    pcie_down: float | None = Field(default=None, gt=0)
    """GB/s from the GPU to page-locked host memory; null on a CPU."""
    host: float = Field(gt=0)
    """GB/s that AdamW on the host reads and writes, all ranks together: 28 bytes an element of float32."""
    disk_write: float | None = Field(default=None, gt=0)
    """GB/s to the drive of the cache, flushed; null: it had no room."""
    disk_read: float | None = Field(default=None, gt=0)
    """GB/s from it, past the page cache where the system allows it."""
    context_gib: float | None = Field(default=None, ge=0)
    """GiB of a card beside PyTorch's allocator once CUDA has begun; null: not known."""
    modules_gib: float | None = Field(default=None, ge=0)
    """The same after a small training step: with cuBLAS and the modules of common kernels."""
    links: dict[int, Links] = {}
    """By number of ranks that were measured together."""

    @property
    def source(self) -> str:
        """`calibrated 2026-11-29`."""
        return f"calibrated {self.measured.isoformat()}"

    def between(self, ranks: int) -> Links | None:
        """The links of so many ranks, or of the nearest number that was measured; null: of none."""
        if not self.links:
            return None
        return self.links[min(self.links, key=lambda count: (abs(count - ranks), count))]

    def outside(self, ranks: int) -> tuple[float | None, float | None]:
        """GiB of a card that no tensor gets: of CUDA, and of the communicators of several ranks; null: not known."""
        links = self.between(ranks) if ranks > 1 else None
        return self.modules_gib, None if links is None else links.communicators_gib
