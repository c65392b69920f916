"""The state in a checkpoint as the engine that ran wrote it: read without that engine, on any number of ranks.

Weights of replicated and fsdp2 runs are in model.safetensors, in float32; DeepSpeed's master weights are in its
optimizer files. Formats are those of torch 2.11 to 2.13, accelerate 1.15 and DeepSpeed 0.19.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers.trainer import SCALER_NAME

from zerofit.checkpoint.canonical import CANONICAL, read_canonical
from zerofit.checkpoint.manifest import read_manifest
from zerofit.config.errors import UserError
from zerofit.config.strategy import ZERO_STAGE
from zerofit.models.pretrained import safetensors_in
from zerofit.models.zero_files import tag_directory
from zerofit.models.zero_states import zero_states
from zerofit.train.state import LossScale, Reader, TrainingState

Groups = Sequence[Sequence[str]]
"""Names of parameters, by optimizer group, in the optimizer's order (`zerofit.train.optimizers.group_names`)."""


def read_state(checkpoint: Path, groups: Groups) -> TrainingState:
    """The state in a checkpoint directory, tensor by tensor. Raises UserError for files that are not what they should.

    `groups` are those of the run, whatever its strategy is now.
    """
    strategy = read_manifest(checkpoint).facts["strategy"]
    if strategy == CANONICAL:
        return _checked(read_canonical(checkpoint), checkpoint, groups)
    whole = safetensors_in(checkpoint, "resume")
    read = READERS["zero" if strategy in ZERO_STAGE else strategy]
    weights, moments, counts, loss_scale = read(checkpoint, groups, whole)
    schedule = torch.load(checkpoint / "scheduler.pt", map_location="cpu", weights_only=True)
    state = TrainingState(weights, moments, counts, buffers=whole, schedule=schedule, loss_scale=loss_scale)
    return _checked(state, checkpoint, groups)


def _checked(state: TrainingState, checkpoint: Path, groups: Groups) -> TrainingState:
    missing = [name for group in groups for name in group if name not in state.weights]
    if missing:
        raise UserError(f"{checkpoint} lacks {missing[0]}, which the run trains: it is of another model")
    return state


Parts = tuple[Mapping[str, Reader], Mapping[str, Mapping[str, Reader]], Mapping[str, float], LossScale | None]


def _replicated(checkpoint: Path, groups: Groups, whole: Mapping[str, Reader]) -> Parts:
    """torch's own optimizer state: numbered as the parameters come in the groups."""
    stored = torch.load(checkpoint / "optimizer.pt", map_location="cpu", mmap=True, weights_only=True)
    names = [name for group in groups for name in group]
    numbers = [number for group in stored["param_groups"] for number in group["params"]]
    if len(numbers) != len(names):
        raise UserError(
            f"{checkpoint / 'optimizer.pt'} is of {len(numbers)} parameters, but the run trains {len(names)}"
        )
    moments: dict[str, dict[str, Reader]] = {}
    counts: dict[str, float] = {}
    for name, number in zip(names, numbers, strict=True):
        kept = stored["state"].get(number, {})  # none of a parameter that never had a gradient
        moments[name] = {kind: _given(value) for kind, value in kept.items() if _is_moment(kind, value)}
        if "step" in kept:
            counts[name] = float(kept["step"])
    return whole, moments, counts, _torch_scale(checkpoint)


def _fsdp2(checkpoint: Path, groups: Groups, whole: Mapping[str, Reader]) -> Parts:
    """torch.distributed.checkpoint's shards, each tensor put together when it is asked for."""
    from torch.distributed.checkpoint import FileSystemReader

    reader = FileSystemReader(checkpoint / "optimizer_0")
    stored: dict[str, Any] = dict(reader.read_metadata().state_dict_metadata)
    moments: dict[str, dict[str, Reader]] = {}
    counts: dict[str, float] = {}
    for name in (name for group in groups for name in group):
        prefix = f"optimizer.state.{name}."
        kinds = {key.removeprefix(prefix): entry for key, entry in stored.items() if key.startswith(prefix)}
        moments[name] = {
            kind: partial(_joined, reader, prefix + kind, entry.size, entry.properties.dtype)
            for kind, entry in kinds.items()
            if kind != "step"
        }
        if "step" in kinds:
            counts[name] = float(_joined(reader, prefix + "step", torch.Size([]), torch.float32))
    return whole, moments, counts, _torch_scale(checkpoint)


def _zero(checkpoint: Path, groups: Groups, whole: Mapping[str, Reader]) -> Parts:
    tag = tag_directory(checkpoint)
    if tag is None:
        raise UserError(f"{checkpoint} has none of DeepSpeed's files (*_states.pt), though DeepSpeed wrote it")
    stored = zero_states(tag)
    scale = None if stored.loss_scale is None else LossScale(*stored.loss_scale)
    return stored.weights, stored.moments, stored.counts, scale


def _torch_scale(checkpoint: Path) -> LossScale | None:
    """That of torch's GradScaler, if there was one."""
    path = checkpoint / SCALER_NAME
    if not path.is_file():
        return None
    stored = torch.load(path, map_location="cpu", weights_only=True)
    return LossScale(float(stored["scale"]), int(stored["_growth_tracker"]))


READERS: dict[str, Callable[[Path, Groups, Mapping[str, Reader]], Parts]] = {
    "single": _replicated,
    "ddp": _replicated,
    "fsdp2": _fsdp2,
    "zero": _zero,
}


def _is_moment(kind: str, value: Any) -> bool:
    return kind != "step" and isinstance(value, Tensor)


def _given(value: Tensor) -> Reader:
    return lambda: value


def _joined(reader: Any, key: str, size: torch.Size, dtype: torch.dtype) -> Tensor:
    from torch.distributed.checkpoint import load as load_shards

    value = {key: torch.empty(size, dtype=dtype)}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled", UserWarning)  # each process reads for itself
        load_shards(value, storage_reader=reader, no_dist=True)
    return value[key]
