"""LARS (You et al. 2017; as in MAE's util/lars.py and MoCo v3's moco/optimizer.py), the same under every engine.

A layer's trust ratio needs the norms of the whole layer, and what an engine hands to the optimizer may be less: FSDP2
gives a DTensor, ZeRO a flat shard of all the parameters of a group. So a group has one parameter here, and brings what
a flat shard no longer shows: whether the layer is adapted, and how many elements it has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor


def real_elements(numel: int, shard: int, rank: int) -> int:
    """How many of a flat shard's elements are the layer's: what follows pads it, and may be uninitialised memory.

    `numel` elements are cut into shards of `shard`; the shards of the last ranks may be padding alone.
    """
    return min(max(numel - rank * shard, 0), shard)


def sum_over_ranks(squares: Tensor, group: dist.ProcessGroup | None) -> None:
    """Add up squared norms (any shape) over the ranks of `group` (null: all), in place. Collective."""
    dist.all_reduce(squares, group=group)


@dataclass(frozen=True)
class Layer:
    """What this rank holds of one parameter: views of equal shape, any of them empty."""

    settings: dict[str, Any]
    """Its optimizer group."""
    weights: Tensor
    gradient: Tensor
    momentum: Tensor

    def decayed(self) -> Tensor:
        """Gradient plus weight decay."""
        decay = self.settings["weight_decay"]
        return self.gradient.add(self.weights, alpha=decay) if decay else self.gradient

    def norms(self) -> Tensor:
        """[2] float32: of the weights and of the decayed gradient, as far as they are held here."""
        of = (self.weights, self.decayed())
        return torch.stack([torch.linalg.vector_norm(part, dtype=torch.float32) for part in of])


class Lars(torch.optim.Optimizer):
    """Momentum SGD whose step is scaled, layer by layer, by trust_coefficient * |p| / |g + weight_decay * p|.

    Each group has one parameter and says `adapt` (scale and decay it: not so for vectors, whatever their weight decay)
    and `numel` (its elements, over all ranks). `flat_sharded`: parameters are this rank's flat shards, as in ZeRO;
    DTensors show by themselves that they are sharded. Norms are added up over the ranks on `device`, since NCCL knows
    no offloaded tensors; sharded parameters make `step` collective.
    """

    def __init__(
        self,
        groups: Iterable[dict[str, Any]],
        *,
        lr: float,
        momentum: float,
        trust_coefficient: float,
        flat_sharded: bool,
        device: torch.device,
    ) -> None:
        defaults = {"lr": lr, "weight_decay": 0.0, "momentum": momentum, "trust_coefficient": trust_coefficient}
        super().__init__(groups, defaults)
        for group in self.param_groups:
            assert len(group["params"]) == 1, "one parameter a group: ZeRO makes one shard of a whole group"
            assert "adapt" in group, "whether a layer is adapted must be said before it is flat"
            assert group["numel"] > 0, "the whole layer's elements: under zero.Init a parameter itself is empty"
        self.flat_sharded, self.device = flat_sharded, device

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Update every parameter that has a gradient (under ZeRO: of the groups that are there at the moment)."""
        assert closure is None
        held = [
            (group, parameter)
            for group in self.param_groups
            for parameter in group["params"]  # empty in groups that ZeRO-3 has put aside
            if parameter.grad is not None
        ]
        layers = [self._layer(group, parameter) for group, parameter in held]
        adapted = [layer for layer in layers if layer.settings["adapt"]]
        if adapted:
            mesh = next((parameter.device_mesh for _, parameter in held if isinstance(parameter, DTensor)), None)
            sharded = self.flat_sharded or mesh is not None
            ratios = iter(self._trust_ratios(adapted, sharded, None if mesh is None else mesh.get_group()))
        for layer in layers:
            update = layer.gradient
            if layer.settings["adapt"]:
                update = layer.decayed() * next(ratios).to(layer.weights.device)
            layer.momentum.mul_(layer.settings["momentum"]).add_(update)
            layer.weights.add_(layer.momentum, alpha=-layer.settings["lr"])

    def _layer(self, group: dict[str, Any], parameter: Tensor) -> Layer:
        state = self.state[parameter]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        assert parameter.grad is not None
        parts = [self._own(part, group["numel"]) for part in (parameter, parameter.grad, state["momentum_buffer"])]
        return Layer(group, *parts)

    def _own(self, part: Tensor, numel: int) -> Tensor:
        """What of a parameter, or of what belongs to it, is here and is no padding; shares its memory."""
        if isinstance(part, DTensor):
            return part.to_local()  # comes without padding
        if self.flat_sharded:
            return part[: real_elements(numel, part.numel(), dist.get_rank())]
        return part

    def _trust_ratios(self, layers: Sequence[Layer], sharded: bool, group: dist.ProcessGroup | None) -> Tensor:
        """[layers] float32 on `device`; 1 where a norm is 0. One all-reduce for all layers, if they are sharded."""
        squares = torch.stack([layer.norms().to(self.device) for layer in layers]).double().square()
        if sharded:  # a rank that holds nothing of a layer takes part as well
            sum_over_ranks(squares, group)
        weights, gradients = squares.sqrt().unbind(dim=1)
        scaled = self.defaults["trust_coefficient"] * weights / gradients
        return torch.where((weights > 0) & (gradients > 0), scaled, 1.0).float()
