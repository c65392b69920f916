"""GiB of a card that no tensor gets: CUDA's context, modules of kernels, and NCCL's buffers."""

from __future__ import annotations

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from zerofit.measure.memory import GIB

WIDTH = 256


class Outside:
    """What this process takes of a card beside PyTorch's allocator; to be made before CUDA has begun.

    What NVML says of the card that it calls `uuid`, less what it said then: what other programs take in between counts
    as well.
    """

    def __init__(self, uuid: str, device: torch.device) -> None:
        self.uuid, self.device = uuid, device
        self._before = _used(uuid)

    def gib(self) -> float | None:
        """Now; null where NVML does not tell."""
        torch.cuda.synchronize(self.device)
        used = _used(self.uuid)
        if used is None or self._before is None:
            return None
        return round(max(0, used - self._before - torch.cuda.memory_reserved(self.device)) / GIB, 4)


def begin_context(device: torch.device) -> None:
    """Let CUDA begin."""
    torch.ones(1, device=device)


def small_step(device: torch.device, dtype: torch.dtype) -> None:
    """A training step with the kernels that most models use, so that their modules are loaded."""
    layers = torch.nn.ModuleList(
        [torch.nn.LayerNorm(WIDTH), torch.nn.Linear(WIDTH, 3 * WIDTH), torch.nn.Linear(WIDTH, WIDTH)]
    ).to(device, dtype)
    optimizer = torch.optim.AdamW(layers.parameters(), fused=True)  # as in runs on CUDA
    norm, inner, outer = layers
    x: Tensor = torch.randn(2, 4, 64, WIDTH, device=device, dtype=dtype)
    query, key, value = inner(norm(x)).chunk(3, -1)
    attended = F.scaled_dot_product_attention(query, key, value)
    loss = F.cross_entropy(F.gelu(outer(attended)).float().flatten(0, -2), torch.zeros(512, device=device).long())
    loss.backward()
    torch.nn.utils.clip_grad_norm_(layers.parameters(), 1.0)
    optimizer.step()


def communicate(device: torch.device) -> None:
    """Use the world's communicator, and a copy of it as DeepSpeed makes one. Collective."""
    ranks = dist.get_world_size()
    whole, part = torch.ones(ranks * 2**20, device=device), torch.ones(2**20, device=device)
    for group in (None, dist.new_group(list(range(ranks)))):
        dist.all_reduce(whole, group=group)
        dist.all_gather_into_tensor(whole, part, group=group)
        dist.reduce_scatter_tensor(part, whole, group=group)


def _used(uuid: str) -> int | None:
    """Bytes; asked of NVML itself, for torch would begin CUDA first."""
    import pynvml

    try:
        pynvml.nvmlInit()
        return int(pynvml.nvmlDeviceGetMemoryInfo(pynvml.nvmlDeviceGetHandleByUUID(uuid)).used)
    except pynvml.NVMLError:
        return None
