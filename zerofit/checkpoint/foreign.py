"""The content of checkpoints that were written elsewhere: DeepSpeed's of any ZeRO stage, and plain weights.

Under ZeRO DeepSpeed keeps float32 masters of what was trained in its optimizer files; frozen tensors and buffers are in
the model files; of tensors that share memory one is written, and `shared_params` says which others are the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from transformers.trainer import TRAINER_STATE_NAME

from zerofit.checkpoint.content import Content, Optimizer, plain, value_of
from zerofit.checkpoint.foreign_lora import merged
from zerofit.checkpoint.outside import shown
from zerofit.checkpoint.stream import Value
from zerofit.config.errors import UserError
from zerofit.models.frozen import FROZEN
from zerofit.models.pretrained import Reader
from zerofit.models.stored import kind_of, stored_weights
from zerofit.models.torch_files import PARALLEL, load
from zerofit.models.zero_files import OPTIMIZER, PART, WHOLE, by_rank, entry, tag_directory, zero_weights
from zerofit.models.zero_states import STEP, ZeroStates, zero_states

RANDOM = "rng_state*.pth"


def foreign_content(path: Path, *, trust: bool, optimizer: bool, merge: bool = False) -> Content:
    """What lies at `path`, a directory or a file; with `merge`, peft's adapters merged in. Raises UserError."""
    if (path / FROZEN).is_file():
        raise UserError(
            f"{path} holds what a run has trained alone, and lies outside of that run: give RUN or RUN@STEP, whose "
            "run.json says where the frozen rest is"
        )
    tag = tag_directory(path) if path.is_dir() else None
    if tag is not None:
        try:
            return _deepspeed(path, tag, trust, optimizer, merge)
        except (TypeError, KeyError, ValueError, AttributeError, IndexError) as error:  # whatever a stranger wrote
            raise UserError(f"{tag} holds other things than DeepSpeed writes: {shown(repr(error))}") from None
    kind_of(path)
    weights = stored_weights(path, trust)
    if merge:
        weights = merged(weights, beside(path))
    notes = ("it holds weights alone, so no optimizer is written",) if optimizer else ()
    return Content(
        str(path), [*weights], lambda: _all(weights), made={"directory": str(path)}, notes=notes, merged=_of(merge)
    )


def beside(path: Path) -> Path:
    """Where config files of a checkpoint lie: its directory; of a tag's, the one that holds the tag."""
    if path.is_file() or any(path.glob("*_states.pt")):
        return path.parent
    return path


def _deepspeed(directory: Path, tag: Path, trust: bool, optimizer: bool, merge: bool) -> Content:
    whole, parts, optimizers = (by_rank(tag, pattern) for pattern in (WHOLE, PART, OPTIMIZER))
    if parts and not optimizers:
        raise UserError(
            f"{tag} is of ZeRO stage 3 and has none of the files that hold its trained weights: "
            "zero_pp_rank_N_mp_rank_00_optim_states.pt"
        )
    weights = zero_weights(tag, trust)
    first = (parts or whole)[0]
    model = load(first, trust=trust)
    notes, kept = [], None
    if optimizers:
        states = zero_states(tag, trust)
        weights |= _masters(model, states, weights)
        kept = _optimizer(model, states, optimizers[0], trust) if optimizer else None
    else:
        notes.append(f"{tag} has no optimizer files: weights are those of {first.name}")
        if model.get("optimizer") is not None and optimizer:
            notes.append("the optimizer's state is numbered there, not named, and is left out")
    if kept is not None and not kept.schedule and model.get("lr_scheduler"):
        notes.append("the state of its learning rate's schedule is more than plain values, and is left out")
    if merge:
        weights = merged(weights, beside(directory))
    step = model.get("global_steps")
    counts = {"step": "global_steps", "samples": "global_samples"}
    records = [*directory.glob(RANDOM), *directory.glob(TRAINER_STATE_NAME)]
    world = model.get("dp_world_size")
    return Content(
        source=str(directory),
        names=[*weights],
        weights=lambda: _all(weights),
        buffers=frozenset(model.get("buffer_names") or ()),
        optimizer=kept,
        step=step if isinstance(step, int) else None,
        facts={"world_size": world} if isinstance(world, int) else {},
        position={name: model[key] for name, key in counts.items() if isinstance(model.get(key), int)},
        files=sorted(path for path in records if path.is_file() and not path.is_symlink()),
        made={"directory": str(directory)},
        merged=_of(merge),
        notes=notes,
    )


def _of(merge: bool) -> dict[str, Any] | None:
    return {"adapters": "peft's"} if merge else None


def _masters(model: Mapping[str, Any], states: ZeroStates, weights: Mapping[str, Reader]) -> dict[str, Reader]:
    """Float32 weights of what was trained, under each name that it has; names without what parallel wrappers add."""
    shared = model.get("shared_params") or {}
    found = {**states.weights, **{name: states.weights[one] for name, one in shared.items() if one in states.weights}}
    return {_name(name, weights): read for name, read in found.items()}


def _name(name: str, weights: Mapping[str, Reader]) -> str:
    short = name.removeprefix(PARALLEL)
    return short if name not in weights and short in weights else name


def _optimizer(model: Mapping[str, Any], states: ZeroStates, path: Path, trust: bool) -> Optimizer:
    """Groups are numbered as their shards are: of stage 3 a group has several."""
    state = entry(path, load(path, trust=trust), "optimizer_state_dict")
    stored = state.get("base_optimizer_state") or state.get("optimizer_state_dict") or {}
    shapes = [list(one) for one in model.get("param_shapes") or ()]
    counts, groups = dict(states.counts), []
    for group in stored.get("param_groups", ()):
        names = [name for number in group["params"] if number < len(shapes) for name in shapes[number]]
        if isinstance(group.get(STEP), int):  # where fused optimizers count
            counts = dict.fromkeys(names, float(group[STEP])) | counts
        groups.append({**{key: value for key, value in group.items() if plain(value)}, "params": names})
    schedule = model.get("lr_scheduler")
    return Optimizer(states.moments, counts, groups, schedule if isinstance(schedule, dict) and plain(schedule) else {})


def _all(weights: Mapping[str, Reader]) -> Iterator[tuple[str, Value]]:
    for name, read in weights.items():
        yield name, value_of(read)
