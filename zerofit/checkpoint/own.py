"""The content of a run's own checkpoint, under whatever strategy it was written."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers.trainer import TRAINER_STATE_NAME

from zerofit.checkpoint.content import Content, Optimizer, plain, value_of
from zerofit.checkpoint.manifest import read_manifest, step_of
from zerofit.checkpoint.native import read_state
from zerofit.checkpoint.stream import Value
from zerofit.config.errors import UserError
from zerofit.config.limited import read_limited
from zerofit.models.pretrained import Reader, safetensors_in
from zerofit.models.whole import Described, all_weights, names_of
from zerofit.plan.spec import RunSpec, origin_of
from zerofit.train.optimizers import group_names, make_optimizer
from zerofit.train.state import TrainingState
from zerofit.train.strategy import Replicated

RANDOM = "rng_state*.pth"
UNQUANTISED = (
    "adapters were trained over weights in 4 bits (model.quantize); they are merged into the weights that those were "
    "made of, which differ by the rounding"
)


def own_content(described: Described, checkpoint: Path, *, merge: bool, optimizer: bool) -> Content:
    """What `checkpoint`, of the run described, holds: master weights in float32, and frozen ones from their origin.

    `merge`: adapters merged into the weights. Raises UserError.
    """
    spec = described.spec
    groups = group_names(described.model, spec)
    state = read_state(checkpoint, groups)
    trained = {name: state.weights[name] for group in groups for name in group}
    held: dict[str, Reader] = {**safetensors_in(checkpoint, str(checkpoint)), **trained}

    def weights() -> Iterator[tuple[str, Value]]:
        for name, read in all_weights(described, held, checkpoint, merged=merge):
            yield name, value_of(read)

    facts = read_manifest(checkpoint).facts
    content = Content(
        source=str(checkpoint),
        names=names_of(described, merged=merge),
        weights=weights,
        buffers=frozenset(name for name, _ in described.model.named_buffers()),
        step=step_of(checkpoint),
        facts={name: facts[name] for name in ("strategy", "world_size", "precision") if name in facts},
        position=_position(spec, checkpoint),
        files=sorted([*checkpoint.glob(RANDOM), checkpoint / TRAINER_STATE_NAME]),
        config=lambda path: described.plain.config.to_json_file(path),
        merged=_merged(spec) if merge else None,
        made={"run": str(spec.run_dir), "origin": origin_of(spec)},
        notes=(UNQUANTISED,) if spec.quantised and merge else (),
    )
    return replace(content, optimizer=_optimizer(described, groups, state)) if optimizer else content


def _optimizer(described: Described, groups: list[list[str]], state: TrainingState) -> Optimizer:
    spec = described.spec
    made = make_optimizer(described.model, spec, Replicated(spec, torch.device("cpu")))
    rates = state.schedule.get("_last_lr") or [group["lr"] for group in made.param_groups]
    settings: list[dict[str, Any]] = []
    for group, names, rate in zip(made.param_groups, groups, rates, strict=True):
        kept = {key: value for key, value in group.items() if key != "params" and plain(value)}
        settings.append({**kept, "initial_lr": group["lr"], "lr": rate, "params": names})
    moments: dict[str, Mapping[str, Reader]] = {name: state.moments.get(name, {}) for group in groups for name in group}
    if not plain(dict(state.schedule)):
        raise UserError(f"{spec.run_dir}: the schedule of its checkpoint holds more than plain values")
    return Optimizer(moments, state.counts, settings, state.schedule)


def _position(spec: RunSpec, checkpoint: Path) -> dict[str, Any]:
    """The order of samples follows from the seed, and how many were seen from step and batch."""
    then = json.loads(read_limited(checkpoint / TRAINER_STATE_NAME))
    step, batch = then["global_step"], spec.batches.global_batch
    return {
        "step": step,
        "epoch": then["epoch"],
        "samples": step * batch,
        "global_batch": batch,
        "steps_per_epoch": spec.batches.steps_per_epoch,
        "seed": spec.recipe.train.seed,
    }


def _merged(spec: RunSpec) -> dict[str, Any] | None:
    lora = spec.recipe.model.lora
    return None if lora is None else lora.model_dump(mode="json")
