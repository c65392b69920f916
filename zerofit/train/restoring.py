"""Putting a `TrainingState` into optimizers and weights as each engine holds them.

Every rank reads the whole tensor and keeps its share; nothing here is collective but what DeepSpeed does at the end.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from zerofit.models.zero_files import Spread
from zerofit.train.lars import real_elements
from zerofit.train.state import LossScale, Reader, TrainingState


def counted(optimizer: torch.optim.Optimizer, parameter: Tensor, count: float) -> Tensor:
    """How many steps were taken, where the optimizer reads it: fused ones beside the parameter, others on the CPU.

    torch 2.13, optim/adam.py, `_init_group`. Checkpoints hold the number, wherever it lay.
    """
    device = parameter.device if optimizer.defaults.get("fused") else "cpu"
    return torch.tensor(count, dtype=torch.float32, device=device)


def restore_tensors(model: nn.Module, optimizer: torch.optim.Optimizer, state: TrainingState, share: Any) -> None:
    """Engines whose optimizer holds the model's parameters; `share(parameter, whole)` gives what is held of them."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    with torch.no_grad():
        for parameter in (one for group in optimizer.param_groups for one in group["params"]):
            name = names[id(parameter)]
            parameter.copy_(share(parameter, state.weights[name]()))
            kept = optimizer.state[parameter]
            if name in state.counts:  # first, as the optimizers do: what is saved then is the same bit by bit
                kept["step"] = counted(optimizer, parameter, state.counts[name])
            for kind, read in state.moments.get(name, {}).items():
                kept[kind] = share(parameter, read())


def restore_flat(optimizer: torch.optim.Optimizer, flat: Tensor, pieces: list[Piece], state: TrainingState) -> None:
    """One flat float32 shard of a group of parameters, and what the optimizer keeps of it."""
    kept = optimizer.state[flat]
    kinds = {kind for piece in pieces for kind in state.moments.get(piece.name, {})}
    for kind in sorted(kinds):
        kept[kind] = torch.zeros_like(flat)
    with torch.no_grad():
        for piece in pieces:
            piece.copy(flat, state.weights[piece.name])
            for kind, read in state.moments.get(piece.name, {}).items():
                piece.copy(kept[kind], read)
    counts = {state.counts[piece.name] for piece in pieces if piece.name in state.counts}
    if counts:
        kept["step"] = counted(optimizer, flat, max(counts))


@dataclass(frozen=True)
class Piece:
    """Elements `first` and on of a whole parameter, `length` of them, at `start` of a flat shard."""

    name: str
    first: int
    length: int
    start: int

    def copy(self, flat: Tensor, read: Reader) -> None:
        """Into the shard; what pads it is left. Of a tensor in several places only what is wanted is read."""
        if self.length == 0:
            return
        passed, last = 0, self.first + self.length
        for part in read.pieces() if isinstance(read, Spread) else (read().flatten(),):
            first, end = max(self.first, passed), min(last, passed + part.numel())
            if first < end:
                start = self.start + first - self.first
                flat[start : start + end - first].copy_(part[first - passed : end - passed])
            passed += part.numel()


def restore_zero_1_2(engine: Any, state: TrainingState) -> None:
    """DeepSpeed's ZeRO stages 1 and 2, and its BF16_Optimizer: parameters know where they lie in the flat shards."""
    from deepspeed.runtime.bf16_optimizer import BF16_Optimizer

    zero = engine.optimizer
    groups = zero.bf16_groups if isinstance(zero, BF16_Optimizer) else zero.bit16_groups
    shards = [group["params"][0] for group in zero.optimizer.param_groups]  # this rank's, float32
    names = {id(parameter): name for name, parameter in engine.module.named_parameters()}
    for flat, group in zip(shards, groups, strict=True):
        pieces = []
        for parameter in group:
            name, mapping = names[id(parameter)], parameter._hp_mapping
            if mapping is None:  # this rank holds none of it; where it holds nothing else, its padding has a state too
                pieces.append(Piece(name, 0, 0, 0))
            else:
                here, there = mapping.lp_fragment_address, mapping.hp_fragment_address
                pieces.append(Piece(name, here.start, here.numel, there.start))
        restore_flat(zero.optimizer, flat, pieces, state)
    zero.update_lp_params()
    if state.loss_scale is not None and not isinstance(zero, BF16_Optimizer):
        restore_scale(zero.loss_scaler, state.loss_scale)


def restore_scale(scaler: Any, then: LossScale) -> None:
    """DeepSpeed's loss scaler, where it is a dynamic one."""
    if scaler.dynamic:
        scaler.cur_scale, scaler.last_overflow_iter, scaler.cur_iter = then.scale, -1, then.good_steps
        scaler.cur_hysteresis = scaler.delayed_shift if then.hysteresis is None else then.hysteresis


def restore_zero_3(engine: Any, state: TrainingState) -> None:
    """DeepSpeed's ZeRO stage 3: of a parameter each rank holds an equal part, the last ones padded. Collective."""
    zero = engine.optimizer
    names = {id(parameter): name for name, parameter in engine.module.named_parameters()}
    rank = dist.get_rank()
    for flat, group in zip(zero.fp32_partitioned_groups_flat, zero.fp16_groups, strict=True):
        start, pieces = 0, []
        for parameter in group:
            shard = parameter.ds_tensor.ds_numel
            length = real_elements(parameter.ds_numel, shard, rank)
            pieces.append(Piece(names[id(parameter)], rank * shard, length, start))
            start += shard
        restore_flat(zero.optimizer, flat, pieces, state)
    if state.loss_scale is not None:
        restore_scale(zero.loss_scaler, state.loss_scale)
    # DeepSpeed's own loading, of what is there already, brings the weights that it computes with up to date.
    own = zero.state_dict()
    zero.load_state_dict([own] * dist.get_world_size(), load_optimizer_states=True, load_from_fp32_weights=True)
    zero.checkpoint_event_epilogue()
