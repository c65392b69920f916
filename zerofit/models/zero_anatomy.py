"""What a DeepSpeed checkpoint says of the program that wrote it: its parameters, optimizer groups, counters, schedule.

Enough to let DeepSpeed write the same state again for other ranks, without the program: `zero_states` has the numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zerofit.config.errors import UserError
from zerofit.models.pretrained import Reader
from zerofit.models.torch_files import load
from zerofit.models.zero_files import OPTIMIZER, PART, WHOLE, by_rank, entry, zero_weights

# What DeepSpeed writes of itself (0.19.8, `_common_checkpoint_state`); all else in the file is the program's.
OWN = frozenset(
    (
        *("module", "buffer_names", "optimizer", "param_shapes", "frozen_param_shapes", "shared_params"),
        *("frozen_param_fragments", "lr_scheduler", "skipped_steps", "global_steps", "global_samples"),
        *("dp_world_size", "mp_world_size", "ds_config", "ds_version", "checkpoint_parallel_dimensions"),
    )
)
UNUSED = (("data_sampler", None), ("random_ltd", None))
"""What DeepSpeed says of its own where a program does not use them; their states are kept as the program's."""


@dataclass(frozen=True)
class ZeroAnatomy:
    """Names are those of the module's state dict."""

    stage: int
    """ZeRO stage."""
    ranks: int
    """World size."""
    parameters: Mapping[str, torch.Size]
    """Whole shapes, in the module's order, shared ones once."""
    buffers: Mapping[str, Tensor]
    """Persistent ones."""
    order: Sequence[str]
    """All of these and the second names of shared parameters, as the module has them."""
    shared: Mapping[str, str]
    """Second name of a parameter -> its first."""
    frozen: Mapping[str, Reader]
    """Parameters that no optimizer group has."""
    groups: Sequence[Sequence[str]]
    """Those that are trained, by optimizer group, in its order."""
    settings: Sequence[Mapping[str, Any]]
    """Of each group: lr, weight_decay, ..."""
    kept: Sequence[Mapping[str, Any]]
    """Of each group what the optimizer keeps besides tensors of the parameters' shapes: step."""
    dtype: torch.dtype
    """That the model computes in."""
    schedule: Mapping[str, Any] | None
    """State of the learning rate's schedule; null where DeepSpeed was given none."""
    counters: Mapping[str, int]
    """global_steps, global_samples, skipped_steps."""
    client: Mapping[str, Any]
    """What the program has added."""
    config: Mapping[str, Any]
    """What DeepSpeed was given, as far as the file says."""
    clip: float | None
    """Norm at which gradients are clipped; null where the files do not say."""


def zero_anatomy(tag: Path) -> ZeroAnatomy:
    """Of the checkpoint in a tag's directory (`global_step500`). Raises UserError where it cannot be written again."""
    whole, parts, optimizers = (by_rank(tag, pattern) for pattern in (WHOLE, PART, OPTIMIZER))
    if not optimizers or not (whole or parts):
        raise UserError(f"{tag} has no optimizer states, so there is no training to go on with")
    first = (parts or whole)[0]
    model = load(first, trust=False)
    state = entry(optimizers[0], load(optimizers[0], trust=False), "optimizer_state_dict")
    module = entry(first, model, "module")
    odd = [name for name, value in module.items() if not isinstance(value, Tensor)]
    if odd:
        raise UserError(f"{first}: {odd[0]} is no tensor: a module with such state cannot be written again")
    pieces = entry(first, model, "param_shapes")
    base = entry(optimizers[0], state, "optimizer_state_dict" if parts else "base_optimizer_state")
    if not isinstance(base, dict):
        raise UserError(f"{optimizers[0]} is an elastic checkpoint: save it without elastic_checkpoint first")
    lengths = [len(group["params"]) for group in base["param_groups"]]  # stage 3 cuts groups into several
    if sum(lengths) != len(pieces):
        raise UserError(f"{optimizers[0]} has {sum(lengths)} groups of parameters, but {first.name} has {len(pieces)}")
    starts = [sum(lengths[:number]) for number in range(len(lengths))]
    cut = [pieces[start : start + length] for start, length in zip(starts, lengths, strict=True)]
    trained = {name: shape for piece in pieces for name, shape in piece.items()}
    buffers = {name: module[name] for name in model.get("buffer_names") or () if name in module}
    shared = dict(model.get("shared_params") or {})
    frozen = model.get("frozen_param_shapes") or {}
    shapes = {name: frozen.get(name, value.shape) for name, value in module.items()} | trained
    parameters = {name: shapes[name] for name in module if name not in buffers and name not in shared}
    dtypes = {module[name].dtype for name in parameters}
    if len(dtypes) > 1:
        raise UserError(f"{first}: parameters of {', '.join(sorted(map(str, dtypes)))} side by side are not converted")
    _check_moments(optimizers[0], state, base)
    held = [name for name in parameters if name not in trained]
    stored = zero_weights(tag, trust=False) if parts and held else {name: _given(module[name]) for name in held}
    given = model.get("ds_config")
    config = given if isinstance(given, dict) else {}
    return ZeroAnatomy(
        stage=3 if parts else int(config.get("zero_optimization", {}).get("stage", 1)),
        ranks=len(optimizers),
        parameters=parameters,
        buffers=buffers,
        order=list(module),
        shared=shared,
        frozen={name: stored[name] for name in held},
        groups=[[name for piece in group for name in piece] for group in cut],
        settings=[{key: value for key, value in one.items() if key != "params"} for one in base["param_groups"]],
        kept=[_kept(base["state"].get(start, {})) for start in starts],
        dtype=dtypes.pop(),
        schedule=model.get("lr_scheduler"),
        counters={key: model.get(key) or 0 for key in ("global_steps", "global_samples", "skipped_steps")},
        client={key: value for key, value in model.items() if key not in OWN and (key, value) not in UNUSED},
        config=config,
        clip=state.get("clip_grad", config.get("gradient_clipping")),
    )


def _given(value: Tensor) -> Reader:
    return lambda: value


def _kept(of_group: Mapping[str, Any]) -> dict[str, Any]:
    return {kind: value for kind, value in of_group.items() if not (isinstance(value, Tensor) and value.ndim == 1)}


def _check_moments(path: Path, state: Mapping[str, Any], base: Mapping[str, Any]) -> None:
    """Raise UserError where the optimizer keeps what does not lie like the weights, as 8-bit ones do."""
    flats = state.get("fp32_flat_groups") or state.get("single_partition_of_fp32_groups") or []
    for number, flat in enumerate(flats):
        for kind, value in base["state"].get(number, {}).items():
            tensor = isinstance(value, Tensor) and value.ndim > 0
            if tensor and not (value.ndim == 1 and value.numel() >= flat.numel() and value.is_floating_point()):
                raise UserError(f"{path}: the optimizer's {kind} does not lie like the weights: it is not converted")
