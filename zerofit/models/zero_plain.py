"""A DeepSpeed checkpoint as what a program without DeepSpeed keeps: one file, for any number of replicas.

state = torch.load(FILE)
model.load_state_dict(state["model"]); optimizer.load_state_dict(state["optimizer"])
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zerofit.models.zero_anatomy import ZeroAnatomy, zero_anatomy
from zerofit.models.zero_states import ZeroStates, zero_states


def plain(tag: Path) -> dict[str, Any]:
    """model (masters in float32 where it is trained), optimizer, lr_scheduler, the counters and the client state.

    The optimizer's parameters are numbered by its groups, as torch does it. Raises UserError where the checkpoint in
    `tag` cannot be read.
    """
    anatomy, stored = zero_anatomy(tag), zero_states(tag)
    return {
        "model": _model(anatomy, stored),
        "optimizer": _optimizer(anatomy, stored),
        "lr_scheduler": anatomy.schedule,
        **anatomy.counters,
        "client_state": dict(anatomy.client),
    }


def _model(anatomy: ZeroAnatomy, stored: ZeroStates) -> dict[str, Tensor]:
    values = {name: anatomy.frozen[name]() for name in anatomy.frozen}
    values |= {name: stored.weights[name]() for group in anatomy.groups for name in group}
    values |= anatomy.buffers
    return {name: values[anatomy.shared.get(name, name)].clone() for name in anatomy.order}


def _optimizer(anatomy: ZeroAnatomy, stored: ZeroStates) -> dict[str, Any]:
    state: dict[int, Mapping[str, Any]] = {}
    groups = []
    for names, settings, kept in zip(anatomy.groups, anatomy.settings, anatomy.kept, strict=True):
        numbers = range(len(state), len(state) + len(names))
        for number, name in zip(numbers, names, strict=True):
            moments = {kind: read().clone() for kind, read in stored.moments[name].items()}
            state[number] = {**{kind: _own(value) for kind, value in kept.items()}, **moments}
        groups.append({**settings, "params": list(numbers)})
    return {"state": state, "param_groups": groups}


def _own(value: Any) -> Any:
    """A parameter's own: optimizers count in place."""
    return value.clone() if isinstance(value, Tensor) else value


def write_plain(tag: Path, path: Path) -> None:
    """`plain` as a file, there whole or not at all. Raises OSError."""
    part = path.with_name(f".{path.name}.part")
    try:
        torch.save(plain(tag), part)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
