"""How fast a GPU does what a training step is made of.

Datasheet rates (zerofit/plan/cards.py) times the share of them that kernels reach. The shares are those of an H200
(torch 2.11, docs/log.md): 0.71 of the dense rate in large bf16 products, 0.83 of the memory's. A link moves, one way,
half of what its datasheet names for both, and NCCL's rings reach 0.7 of that. Host times are of eager PyTorch.
"""

from __future__ import annotations

from dataclasses import dataclass

from zerofit.plan.cards import CARDS, Card, card_of
from zerofit.plan.spec import Hardware

PRODUCTS, MEMORY, LINK = 0.71, 0.83, 0.7
"""Shares of datasheet rates."""
KERNEL_S = 2e-6
"""Seconds of the shortest kernel."""
LAUNCH_S = 6e-6
"""Seconds that Python and PyTorch's dispatcher take for an operation of autograd's."""
VISIT_S = 1.5e-3
"""Seconds for a module with weights each time that ZeRO-3 fetches and releases these (ViT-H on 4 H200s: 0.79 s more
than under DDP, for 520 visits)."""
PINNED = 0.8
"""Share of PCIe's rate that copies between pinned host memory and a GPU reach."""
PCIE_GB_S = {7: 16.0, 8: 32.0, 9: 64.0, 10: 64.0}
"""GB/s one way of a card's 16 lanes, by the major version of its compute capability: PCIe 3, 4 and 5."""
HOST_BYTES_S = 10e9
"""Bytes a second that DeepSpeed's CPU Adam moves on a core; it uses them all, up to HOST_LIMIT."""
HOST_LIMIT = 150e9


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


def rates_of(hardware: Hardware, ranks: int) -> Rates | None:
    """Of its GPU, among `ranks` on a host; null for a CPU.

    A GPU that no datasheet here is of is taken to be the one of the next smaller compute capability and memory.
    """
    if hardware.device != "cuda":
        return None
    card = card_of(hardware.name) or _like(hardware)
    low = card.bf16 if card.bf16 is not None else card.fp16
    tera = {"fp16": card.fp16, "bf16": low, "fp32": card.fp32}
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
