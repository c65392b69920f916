"""Master weights and optimizer state in DeepSpeed's checkpoints of any ZeRO stage, read without DeepSpeed.

Stages 1 and 2 write of each optimizer group one flat float32 shard a rank, and where each parameter's elements lie in
it (`param_slice_mappings`); stage 3 the flat shards of `zero_files`. What the optimizer keeps lies like the weights.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from zerofit.config.errors import UserError
from zerofit.models.pretrained import Reader
from zerofit.models.torch_files import load
from zerofit.models.zero_files import OPTIMIZER, PART, WHOLE, Flat, Spread, by_rank, entry, slices

STEP = "step"


@dataclass(frozen=True)
class ZeroStates:
    """By parameter name."""

    weights: Mapping[str, Reader]
    moments: Mapping[str, Mapping[str, Reader]]
    counts: Mapping[str, float]
    loss_scale: tuple[float, int, int] | None = None
    """Of fp16: the scale, the steps since the last overflow, and the hysteresis that is left."""


def zero_states(directory: Path, trust: bool = False) -> ZeroStates:
    """What the optimizer files in a tag's directory (`global_step500`) hold. Raises UserError."""
    whole, parts, optimizers = (by_rank(directory, pattern) for pattern in (WHOLE, PART, OPTIMIZER))
    if not optimizers:
        raise UserError(f"{directory} has no optimizer states: neither zero_pp_rank_0_mp_rank_00_optim_states.pt nor")
    states = [entry(path, load(path, trust=trust), "optimizer_state_dict") for path in optimizers]
    model = load((parts or whole)[0], trust=trust)
    found = (_stage_3 if parts else _stage_1_2)((parts or whole)[0], model, optimizers, states)
    return replace(found, loss_scale=_loss_scale(states[0]))


def _stage_1_2(path: Path, model: Any, files: Sequence[Path], states: Sequence[Any]) -> ZeroStates:
    weights: dict[str, Reader] = {}
    moments: dict[str, dict[str, Reader]] = {}
    counts: dict[str, float] = {}
    ranks = entry(files[0], states[0], "partition_count")
    count = ranks[0] if isinstance(ranks, list) else ranks
    if count != len(files):
        raise UserError(
            f"{path.parent} has the files *_optim_states.pt of {len(files)} ranks, but was written by {count}"
        )
    for number, shapes in enumerate(entry(path, model, "param_shapes")):
        places = [entry(file, state, "param_slice_mappings")[number] for file, state in zip(files, states, strict=True)]
        kept = [state["base_optimizer_state"]["state"].get(number, {}) for state in states]
        masters = [state["single_partition_of_fp32_groups"][number] for state in states]
        kinds = [kind for kind, value in kept[0].items() if isinstance(value, Tensor) and value.ndim == 1]
        for name, shape in shapes.items():
            held = [(rank, place[name]) for rank, place in enumerate(places) if name in place]
            if sum(place.numel for _, place in held) != math.prod(shape):
                raise UserError(
                    f"{path.parent}: the optimizer files hold a part of {name} alone: some are of other runs"
                )
            weights[name] = Spread(partial(_fragments, masters, held), shape)
            moments[name] = {
                kind: Spread(partial(_fragments, [one.get(kind) for one in kept], held), shape) for kind in kinds
            }
            if STEP in kept[0]:
                counts[name] = float(kept[0][STEP])
    return ZeroStates(weights, moments, counts)


def _loss_scale(state: Any) -> tuple[float, int, int] | None:
    """That of DeepSpeed's DynamicLossScaler; null where a loss is not scaled, or by a constant."""
    scaler = vars(state["loss_scaler"]) if "loss_scaler" in state else {}
    if "last_overflow_iter" not in scaler:
        return None
    good = scaler["cur_iter"] - scaler["last_overflow_iter"] - 1
    return float(scaler["cur_scale"]), good, scaler["cur_hysteresis"]


def _fragments(flats: Sequence[Tensor], held: Sequence[tuple[int, Any]]) -> Iterable[Tensor]:
    return (flats[rank][place.start : place.start + place.numel] for rank, place in held)


def _stage_3(path: Path, model: Any, files: Sequence[Path], states: Sequence[Any]) -> ZeroStates:
    ranks = entry(files[0], states[0], "partition_count")
    if ranks != len(files):
        raise UserError(
            f"{path.parent} has the files *_optim_states.pt of {len(files)} ranks, but was written by {ranks}"
        )
    kept = [entry(file, state, "optimizer_state_dict")["state"] for file, state in zip(files, states, strict=True)]
    kinds = [kind for kind, value in kept[0].get(0, {}).items() if isinstance(value, Tensor) and value.ndim == 1]
    masters = [Flat(entry(file, state, "fp32_flat_groups")) for file, state in zip(files, states, strict=True)]
    flats = {kind: [Flat([one[number][kind] for number in sorted(one)]) for one in kept] for kind in kinds}
    weights: dict[str, Reader] = {}
    moments: dict[str, dict[str, Reader]] = {}
    counts: dict[str, float] = {}
    start = 0
    for group in entry(path, model, "param_shapes"):
        for name, shape in group.items():
            length = math.ceil(math.prod(shape) / ranks)
            weights[name] = Spread(partial(slices, masters, start, length), shape)
            moments[name] = {kind: Spread(partial(slices, flats[kind], start, length), shape) for kind in kinds}
            counts |= {name: float(kept[0][0][STEP])} if STEP in kept[0].get(0, {}) else {}
            start += length
    if any(flat.size != start for flat in masters):
        raise UserError(f"{path.parent}: the optimizer files do not hold the parameters listed in {path.name}")
    return ZeroStates(weights, moments, counts)
