"""The canonical form: a checkpoint that no strategy, world size or library version has left a trace in.

DIR/model*.safetensors     every parameter whole in float32, by its name, and the buffers
DIR/optimizer*.safetensors what the optimizer keeps of each, as `exp_avg.NAME`, `momentum_buffer.NAME`
DIR/state.json             steps that were counted, groups with their hyper-parameters, schedule, position in the data
DIR/rng_state*.pth, DIR/trainer_state.json   random numbers of each rank, and Trainer's record, where there were any
DIR/manifest.json          written last: sizes and hashes

Tensors are written one at a time and in pieces; above 5 GB into shards with an index.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import ValidationError

from zerofit.checkpoint.content import Content, Optimizer, value_of
from zerofit.checkpoint.headers import read_header
from zerofit.checkpoint.manifest import read_manifest, write_json, write_manifest
from zerofit.checkpoint.stream import SHARD, Progress, Shards, Written, nothing, read_back
from zerofit.config.errors import UserError
from zerofit.config.limited import read_limited
from zerofit.config.section import Section
from zerofit.models.pretrained import Reader, safetensors_in
from zerofit.train.state import TrainingState

CANONICAL = "canonical"
"""The strategy in its manifest."""
STATE = "state.json"


class State(Section):
    """state.json."""

    version: Literal[1] = 1
    """Version of this format."""
    step: int | None
    """Optimizer steps that were done."""
    counts: dict[str, float]
    """Steps that the optimizer has counted of each parameter."""
    groups: list[dict[str, Any]]
    """Hyper-parameters of each group; `params` are its parameters' names."""
    schedule: dict[str, Any]
    """State of the learning rate's schedule."""
    position: dict[str, Any]
    """Where in the data it stands."""
    buffers: list[str]
    """Tensors of the model that are no parameters."""
    source: str
    """What it was made from."""


def write_canonical(content: Content, directory: Path, limit: int = SHARD, progress: Progress = nothing) -> Written:
    """Write all that `content` holds into `directory`, which is there; each tensor is read back. Raises UserError."""
    kept = content.optimizer or Optimizer({}, {}, [])
    written = write_weights(content, directory, torch.float32, limit, progress)
    if kept.moments:
        names = [f"{kind}.{name}" for name, kinds in kept.moments.items() for kind in kinds]
        with Shards(directory, "optimizer", names, limit, progress) as shards:
            for name, kinds in kept.moments.items():
                for kind, read in kinds.items():
                    shards.write(f"{kind}.{name}", value_of(read))
            moments = shards.close()
        read_back(directory, moments, progress)
        written.size += moments.size
    for path in content.files:
        shutil.copyfile(path, directory / path.name)
    state = State(
        step=content.step,
        counts=dict(kept.counts),
        groups=[dict(group) for group in kept.groups],
        schedule=dict(kept.schedule),
        position=dict(content.position),
        buffers=sorted(content.buffers),
        source=content.source,
    )
    write_json(directory / STATE, state.model_dump(mode="json"))
    return written


def seal(content: Content, directory: Path) -> None:
    """List what is in `directory` in its manifest, durably; nothing is written to it after that."""
    facts = {**content.facts, "strategy": CANONICAL, "step": content.step}
    if "strategy" in content.facts:
        facts["written_by"] = content.facts["strategy"]
    write_manifest(directory, facts)


def write_weights(
    content: Content, directory: Path, dtype: torch.dtype, limit: int = SHARD, progress: Progress = nothing
) -> Written:
    """`model*.safetensors` (or as `stem` says) of all tensors, parameters in `dtype`, read back and compared.

    Raises UserError.
    """
    with Shards(directory, content.stem, content.names, limit, progress) as shards:
        for name, value in content.weights():
            shards.write(name, value, content.dtype_of(name, value, dtype))
        if shards.left:
            raise UserError(f"{content.source} lacks {next(iter(shards.left))}")
        written = shards.close()
    read_back(directory, written, progress)
    return written


def is_canonical(directory: Path) -> bool:
    """Whether a directory is in this form, whole or not."""
    return (directory / STATE).is_file()


def read_canonical(directory: Path) -> TrainingState:
    """The state in a directory of this form, tensor by tensor. Raises UserError."""
    state, weights = read_state_file(directory), safetensors_in(directory, str(directory))
    moments = _moments(directory)
    return TrainingState(weights, moments, state.counts, buffers=weights, schedule=state.schedule)


def stored_shapes(directory: Path) -> dict[str, tuple[int, ...]]:
    """Of each weight and buffer, from the headers of its files. Raises UserError."""
    return {
        name: tensor.shape
        for path in sorted(directory.glob("model*.safetensors"))
        for name, tensor in read_header(path).items()
    }


def canonical_content(directory: Path, *, optimizer: bool) -> Content:
    """What a directory of this form holds, to be written in another. Raises UserError."""
    state, weights = read_state_file(directory), safetensors_in(directory, str(directory))
    facts = read_manifest(directory).facts
    config = directory / "config.json"
    return Content(
        source=str(directory),
        names=[*weights],
        weights=lambda: ((name, read()) for name, read in weights.items()),
        buffers=frozenset(state.buffers),
        optimizer=Optimizer(_moments(directory), state.counts, state.groups, state.schedule) if optimizer else None,
        step=state.step,
        facts={name: facts[name] for name in ("world_size", "precision") if name in facts},
        position=state.position,
        files=sorted([*directory.glob("rng_state*.pth"), *directory.glob("trainer_state.json")]),
        config=partial(shutil.copyfile, config) if config.is_file() else None,
        made={"directory": str(directory)},
    )


def read_state_file(directory: Path) -> State:
    """state.json. Raises UserError where it cannot be read."""
    path = directory / STATE
    try:
        return State.model_validate_json(read_limited(path))
    except (ValidationError, OSError) as error:
        raise UserError(f"{path} cannot be read: {str(error).splitlines()[0]}") from None


def _moments(directory: Path) -> Mapping[str, Mapping[str, Reader]]:
    if not any(directory.glob("optimizer*.safetensors*")):
        return {}
    found: dict[str, dict[str, Reader]] = {}
    for key, read in safetensors_in(directory, str(directory), "optimizer").items():
        kind, _, name = key.partition(".")
        found.setdefault(name, {})[kind] = read
    return found
