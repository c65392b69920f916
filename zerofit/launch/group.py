"""Joining the ranks: device, process group, logging."""

from __future__ import annotations

import faulthandler
import logging
import os
from datetime import timedelta
from typing import TYPE_CHECKING, Literal

from zerofit.config.errors import UserError
from zerofit.launch.environment import World
from zerofit.plan.cap import fraction
from zerofit.plan.hardware import GIB
from zerofit.train.parting import part

if TYPE_CHECKING:
    import torch

# Of one collective. NCCL's own 10 minutes end a run while rank 0 writes and hashes a large checkpoint and its peers
# wait. Nothing is found out later for it: launchers notice dead ranks themselves.
TIMEOUT = timedelta(hours=4)

RECORDER = ("TORCH_FR_BUFFER_SIZE", "TORCH_NCCL_TRACE_BUFFER_SIZE")
"""How many collectives NCCL's flight recorder keeps: 2000 by default in torch 2.13, 0 in 2.4."""


def join(world: World, device: Literal["cpu", "cuda"]) -> None:
    """Take this rank's device and meet the others. Raises UserError where PyTorch cannot use the planned device."""
    import torch
    import torch.distributed as dist

    faulthandler.enable()
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("zerofit").setLevel(logging.INFO)
    if device == "cpu":
        dist.init_process_group("gloo", timeout=TIMEOUT)
        return
    own = gpu_of(world)
    torch.cuda.set_device(own)
    if not os.environ.keys() & set(RECORDER):
        os.environ[RECORDER[0]] = "2000"
    # gloo besides NCCL, as PyTorch's own default: objects and offloaded shards are exchanged on the CPU.
    # Bound to its device NCCL connects at once, which a rank without peers cannot.
    dist.init_process_group("cpu:gloo,cuda:nccl", timeout=TIMEOUT, device_id=own if world.size > 1 else None)


def gpu_of(world: World) -> torch.device:
    """This rank's GPU. Raises UserError where PyTorch cannot use so many."""
    import torch

    if torch.cuda.device_count() <= world.local_rank:
        raise UserError(
            f"the plan puts rank {world.rank} on GPU {world.local_rank}, but PyTorch {torch.__version__} can "
            f"use {torch.cuda.device_count()} GPUs: install a PyTorch that fits the driver, or set ZEROFIT_DEVICE=cpu"
        )
    return torch.device("cuda", world.local_rank)


def limit(cap: float | None, device: Literal["cpu", "cuda"]) -> None:
    """Let PyTorch take `cap` GiB of this rank's GPU, and no more; what NCCL and CUDA itself take is not counted.

    Raises UserError where the GPU is smaller.
    """
    import torch

    if cap is not None and device == "cuda":
        card = torch.cuda.get_device_properties(torch.cuda.current_device())
        torch.cuda.set_per_process_memory_fraction(fraction(cap, card.total_memory / GIB, card.name))


def leave() -> None:
    """Part in good order."""
    import torch.distributed as dist

    part()
    if dist.is_initialized():  # vLLM takes it along when it is shut down
        dist.destroy_process_group()
