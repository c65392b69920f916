"""GPUs as their datasheets have them, so that a run can be planned for cards that this machine does not have.

Memory is what `nvidia-smi --query-gpu=memory.total` says, which is a little less than the name promises. Rates are of
dense matrix products with float32 accumulation.

Sources, all by NVIDIA: "Tesla V100" datasheet (2018); "T4" datasheet (2019); "Turing GPU architecture" whitepaper
(2018; reference card, FP32 accumulate); "Ampere GA102 GPU architecture" whitepaper v2 (2021; FP32 accumulate); "Ada GPU
architecture" whitepaper v2 (2023; FP32 accumulate); "A100" datasheet (2021); "A10" (2021), "RTX A6000" (2021), "RTX
6000 Ada" (2023), "L4" (2023) and "L40S" (2023) datasheets; "H100" datasheet (2023) and "Hopper architecture" whitepaper
(2022); "H200" datasheet (2024); "HGX B200" datasheet (2024). Rates given "with sparsity" are halved. Links are of one
GPU, both directions together: NVLink's where the card has it, else PCIe's.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from zerofit.config.errors import UserError, did_you_mean
from zerofit.plan.precision import AMPERE
from zerofit.plan.spec import Hardware


@dataclass(frozen=True)
class Card:
    """A GPU."""

    short: str
    """What `--gpu` calls it."""
    name: str
    """What the driver calls it."""
    memory_mib: int
    """As nvidia-smi reports it."""
    capability: tuple[int, int]
    """CUDA compute capability."""
    fp16: float
    """TFLOP/s in float16."""
    bf16: float | None
    """TFLOP/s in bfloat16; null: its tensor cores lack it."""
    fp32: float
    """TFLOP/s in float32: TF32's where there is TF32."""
    plain: float
    """TFLOP/s in float32 without TF32, which PyTorch's matrix products do unless they are told otherwise."""
    bandwidth: float
    """GB/s of its memory."""
    link: Literal["NVLink", "PCIe"]
    """What it is connected to other GPUs by."""
    link_gb_s: float
    """GB/s of that link."""
    also: str | None = None
    """Regular expression for the whole of other names that drivers give it, without its maker and its line."""

    @property
    def memory_gib(self) -> float:
        """As nvidia-smi reports it."""
        return round(self.memory_mib / 1024, 2)


NVLINK: Literal["NVLink"] = "NVLink"
PCIE: Literal["PCIe"] = "PCIe"
A100 = r"A100[- ][^M]*"
"""Not those that are a slice of one (MIG)."""
# fmt: off
CARDS: tuple[Card, ...] = (
    Card("v100", "Tesla V100-SXM2-32GB", 32768, (7, 0), 125.0, None, 15.7, 15.7, 900, NVLINK, 300, r"V100-SXM.*32GB"),
    Card("v100-16gb", "Tesla V100-SXM2-16GB", 16384, (7, 0), 125.0, None, 15.7, 15.7, 900, NVLINK, 300, r"V100-SXM.*"),
    Card("v100-pcie", "Tesla V100-PCIE-32GB", 32768, (7, 0), 112, None, 14.0, 14.0, 900, PCIE, 32),
    Card("v100-pcie-16gb", "Tesla V100-PCIE-16GB", 16384, (7, 0), 112, None, 14.0, 14.0, 900, PCIE, 32, r"V100-PCIE.*"),
    Card("t4", "Tesla T4", 15360, (7, 5), 65.0, None, 8.1, 8.1, 300, PCIE, 32),
    Card("rtx-2080-ti", "NVIDIA GeForce RTX 2080 Ti", 11264, (7, 5), 53.8, None, 13.4, 13.4, 616, PCIE, 32),
    Card("rtx-3090", "NVIDIA GeForce RTX 3090", 24576, (8, 6), 71.0, 71.0, 35.6, 35.6, 936, PCIE, 64),
    Card("rtx-4090", "NVIDIA GeForce RTX 4090", 24564, (8, 9), 165.2, 165.2, 82.6, 82.6, 1008, PCIE, 64),
    Card("rtx-a6000", "NVIDIA RTX A6000", 49140, (8, 6), 154.8, 154.8, 77.4, 38.7, 768, PCIE, 64),
    Card("rtx-6000-ada", "NVIDIA RTX 6000 Ada Generation", 49140, (8, 9), 364.2, 364.2, 182.1, 91.1, 960, PCIE, 64),
    Card("a10", "NVIDIA A10", 23028, (8, 6), 125.0, 125.0, 62.5, 31.2, 600, PCIE, 64),
    Card("a100", "NVIDIA A100-SXM4-80GB", 81920, (8, 0), 312.0, 312.0, 156.0, 19.5, 2039, NVLINK, 600),
    Card("a100-40gb", "NVIDIA A100-SXM4-40GB", 40960, (8, 0), 312.0, 312.0, 156.0, 19.5, 1555, NVLINK, 600),
    Card("a100-pcie", "NVIDIA A100 80GB PCIe", 81920, (8, 0), 312.0, 312.0, 156.0, 19.5, 1935, PCIE, 64),
    Card("a100-pcie-40gb", "NVIDIA A100-PCIE-40GB", 40960, (8, 0), 312, 312, 156, 19.5, 1555, PCIE, 64, A100),
    Card("l4", "NVIDIA L4", 23034, (8, 9), 121.0, 121.0, 60.0, 30.3, 300, PCIE, 64),
    Card("l40s", "NVIDIA L40S", 46068, (8, 9), 362.05, 362.05, 183.0, 91.6, 864, PCIE, 64),
    Card("h100", "NVIDIA H100 80GB HBM3", 81559, (9, 0), 989.4, 989.4, 494.7, 66.9, 3350, NVLINK, 900, r"H100"),
    Card("h100-pcie", "NVIDIA H100 PCIe", 81559, (9, 0), 756.0, 756.0, 378.0, 51.2, 2039, PCIE, 128),
    Card("h100-nvl", "NVIDIA H100 NVL", 95830, (9, 0), 835.5, 835.5, 417.5, 60.0, 3938, NVLINK, 600),
    Card("h200", "NVIDIA H200", 143771, (9, 0), 989.4, 989.4, 494.7, 66.9, 4800, NVLINK, 900),
    Card("h200-nvl", "NVIDIA H200 NVL", 143771, (9, 0), 835.5, 835.5, 417.5, 60.0, 4800, NVLINK, 900),
    Card("b200", "NVIDIA B200", 183359, (10, 0), 2250.0, 2250.0, 1125.0, 75.0, 8000, NVLINK, 1800),
)
# fmt: on
"""The first that a driver's name fits counts."""

USUAL = "h100"
"""What is planned for where nobody says, on a machine without GPUs."""


def card_of(driver: str) -> Card | None:
    """The card that a driver calls so; null for an unknown one, a MIG slice, and a laptop's."""
    bare = _bare(driver)
    for card in CARDS:
        if bare == _bare(card.name) or (card.also is not None and re.fullmatch(card.also, bare)):
            return card
    return None


def named_card(word: str) -> Card:
    """The card that `--gpu` means: by its short name or the driver's, in any case, with or without spaces.

    Raises UserError that names the nearest.
    """
    by_name = {_plain(name): card for card in CARDS for name in (card.name, card.short)}
    card = by_name.get(_plain(word)) or card_of(word)
    if card is None:
        names = [one.short for one in CARDS]
        raise UserError(
            f"--gpu: {word!r} is not known{did_you_mean(word.lower(), names)} ({', '.join(names)}); for another card "
            "give its --gpu-memory alone, for example 24GiB"
        )
    return card


def asked_hardware(*, card: Card | None, memory_gib: float | None, count: int, cpus: int) -> Hardware:
    """What is planned for: `count` of a card, or of one of `memory_gib` GiB, which is then taken to be an Ampere.

    With both, the card as if it had that memory. One of them is given.
    """
    if card is not None:
        memory, name, capability = memory_gib or card.memory_gib, card.name, card.capability
    else:
        assert memory_gib is not None, "a card, or a size"
        memory, name, capability = memory_gib, f"GPU of {memory_gib:g} GiB (Ampere assumed)", AMPERE
    return Hardware(device="cuda", count=count, name=name, memory_gib=memory, capability=capability, cpus=cpus)


def _bare(name: str) -> str:
    """`NVIDIA GeForce RTX 2080 Ti` -> `RTX 2080 Ti`."""
    return re.sub(r"(nvidia|geforce|tesla) ", "", name, flags=re.IGNORECASE).strip()


def _plain(name: str) -> str:
    """`NVIDIA GeForce RTX 2080 Ti`, `2080ti` or `rtx-2080-ti` -> `2080ti`."""
    return "".join(re.findall(r"[a-z0-9]+", _bare(name).lower())).removeprefix("rtx")
