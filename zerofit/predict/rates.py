"""How fast a GPU does what a training step is made of.

Datasheet rates (zerofit/plan/cards.py) times the share of them that kernels reach. The shares are those of an H200
(torch 2.11, docs/log.md): 0.71 of the dense rate in large bf16 products, 0.83 of the memory's. A link moves, one way,
half of what its datasheet names for both, and NCCL's rings reach 0.7 of that. Host times are of eager PyTorch.

What `zerofit doctor --calibrate` has measured of the GPU takes the place of each of these.
"""

from __future__ import annotations

import math
from bisect import bisect
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from zerofit.plan.calibration import Calibration
from zerofit.plan.cards import CARDS, Card, card_of
from zerofit.plan.spec import Hardware

PRODUCTS, MEMORY, LINK = 0.71, 0.83, 0.7
"""Shares of datasheet rates."""
KERNEL_S = 2e-6
"""Seconds of the shortest kernel."""
LAUNCH_S = 26e-6
"""Seconds that Python, a model's modules and PyTorch's dispatcher take for an operation. Qwen3-8B on 4 H200s comes to
271, 234 and 121 samples/s so under ZeRO-2, FSDP2 and ZeRO-3, and 260, 231 and 122 were measured; another host with such
a card took 34 to 45 microseconds (docs/log.md, 2026-12-01)."""
PINNED = 0.8
"""Share of PCIe's rate that copies between pinned host memory and a GPU reach."""
PCIE_GB_S = {7: 16.0, 8: 32.0, 9: 64.0, 10: 64.0}
"""GB/s one way of a card's 16 lanes, by the major version of its compute capability: PCIe 3, 4 and 5."""
HOST_BYTES_S = 10e9
"""Bytes a second that AdamW moves on a core; it uses them all, up to HOST_LIMIT."""
HOST_LIMIT = 150e9
SHIPPED = "shipped"
Curve = tuple[tuple[float, float], ...]
"""(operations of a product, operations a second), by rising size."""


@dataclass(frozen=True)
class Rates:
    """Of one GPU, in units a second."""

    products: dict[str, float]
    """Floating-point operations of large matrix products, by precision."""
    memory: float
    """Bytes read and written."""
    link: float
    """Bytes that one GPU sends to others."""
    pcie: float
    """Bytes between the GPU and pinned host memory, one way."""
    host: float
    """Bytes that the optimizer on the host reads and writes, for each rank."""
    kernel_s: float = KERNEL_S
    """Seconds of the shortest kernel."""
    launch_s: float = LAUNCH_S
    """Seconds that the host takes for an operation."""
    curves: Mapping[str, Curve] = field(default_factory=dict)
    """By precision, what products of each size reach, where that was measured."""
    attention: Mapping[str, Curve] = field(default_factory=dict)
    """The same of attention, by forward and backward."""
    source: str = SHIPPED
    """Where they come from."""

    def product(self, precision: str, flops: float) -> float:
        """What a product of `flops` operations reaches."""
        points = self.curves.get(precision)
        return along(points, flops) if points else self.products[precision]

    def attends(self, phase: str, flops: float, otherwise: float) -> float:
        """What attention of `flops` operations reaches in a phase; where that was not measured, `otherwise`."""
        points = self.attention.get(phase)
        return along(points, flops) if points else otherwise


def along(points: Curve, flops: float) -> float:
    """Between measured sizes a line over their logarithm, beyond them the last one."""
    right = bisect(points, flops, key=lambda point: point[0])
    if right in (0, len(points)):
        return points[min(right, len(points) - 1)][1]
    (less, low), (more, high) = points[right - 1], points[right]
    return low + (high - low) * math.log(flops / less) / math.log(more / less)


def rates_of(hardware: Hardware, ranks: int, calibration: Calibration | None = None) -> Rates | None:
    """Of its GPU, among `ranks` on a host, as far as they were measured; null for a CPU.

    A GPU that no datasheet here is of is taken to be the one of the next smaller compute capability and memory.
    """
    if hardware.device != "cuda":
        return None
    shipped = _shipped(hardware, ranks)
    return shipped if calibration is None else measured(shipped, calibration, ranks)


def measured(shipped: Rates, found: Calibration, ranks: int) -> Rates:
    """`shipped` with what was measured in its place."""
    made = {name: [(one.flops, one.tera) for one in products] for name, products in found.products.items()}
    curves: dict[str, Curve] = {name: curve(points) for name, points in made.items() if points}
    best = {name: max(rate for _, rate in points) for name, points in curves.items()}
    links = found.between(ranks)
    lanes = [rate for rate in (found.pcie_up, found.pcie_down) if rate is not None]
    forward = curve([(one.forward_flops, one.forward_tera) for one in found.attention])
    backward = curve([(one.backward_flops, one.backward_tera) for one in found.attention])
    return replace(
        shipped,
        products=shipped.products | best,
        memory=1e9 * found.memory,
        link=shipped.link if links is None else 1e9 * links.messages[-1].slowest,
        pcie=1e9 * min(lanes) if lanes else shipped.pcie,
        host=1e9 * found.host / ranks,
        kernel_s=found.kernel_s or shipped.kernel_s,
        launch_s=found.launch_s,
        curves=curves,
        attention={"forward": forward, "backward": backward},
        source=found.source,
    )


def curve(measured: Iterable[tuple[float, float]]) -> Curve:
    """Of (operations, TFLOP/s), by rising size; of shapes of one size the mean time counts."""
    by_size: dict[float, list[float]] = {}
    for flops, tera in measured:
        by_size.setdefault(flops, []).append(1e12 * tera)
    return tuple((size, len(rates) / sum(1 / rate for rate in rates)) for size, rates in sorted(by_size.items()))


def _shipped(hardware: Hardware, ranks: int) -> Rates:
    card = card_of(hardware.name) or _like(hardware)
    low = card.bf16 if card.bf16 is not None else card.fp16
    tera = {"fp16": card.fp16, "bf16": low, "fp32": card.plain}
    return Rates(
        products={name: PRODUCTS * 1e12 * rate for name, rate in tera.items()},
        memory=MEMORY * 1e9 * card.bandwidth,
        link=LINK * 1e9 * card.link_gb_s / 2,
        pcie=PINNED * 1e9 * PCIE_GB_S[max(7, min(10, card.capability[0]))],
        host=min(HOST_LIMIT, HOST_BYTES_S * hardware.cpus) / ranks,
    )


def _like(hardware: Hardware) -> Card:
    def distance(card: Card) -> tuple[int, float]:
        known = hardware.capability or card.capability
        return abs(card.capability[0] - known[0]), abs(card.memory_gib - hardware.memory_gib)

    return min(CARDS, key=distance)
