"""A DeepSpeed checkpoint that another program wrote: which files it must have, and the step that they say.

    DIR/latest                      names the tag
    DIR/global_step120/             the tag: *_model_states.pt, and *_optim_states.pt of every rank
    DIR/client_state.pt             optional: a dict with step (or global_step) and epoch, as that program counts them
    DIR/trainer_state.json          where transformers' Trainer wrote it

All of it is read without DeepSpeed, as `init_from` reads it, and with `weights_only=True` unless it is trusted.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from zerofit.checkpoint.canonical import read_state_file
from zerofit.checkpoint.manifest import read_manifest
from zerofit.config.errors import UserError
from zerofit.config.limited import read_limited
from zerofit.models.stored import PICKLES
from zerofit.models.torch_files import load
from zerofit.models.zero_files import LATEST, OPTIMIZER, PART, WHOLE, by_rank, tag_directory

CLIENT, TRAINER = "client_state.pt", "trainer_state.json"
STEPS = ("global_step", "global_steps", "step")
"""Keys under which programs keep the number of optimizer steps."""
BROKEN = (KeyError, IndexError, TypeError, AttributeError, ValueError, RuntimeError)
"""What reading a file of another layout than DeepSpeed 0.19's raises."""


@dataclass(frozen=True)
class Written:
    """What the files say."""

    tag: Path
    """The directory of the states, absolute."""
    stage: int | None
    """ZeRO stage; null where they do not say."""
    ranks: int
    """World size."""
    step: int
    """Optimizer steps that were taken."""
    epoch: float | None
    """Epochs, as the program counts them."""
    batch: int | None
    """Samples of an optimizer step."""
    shapes: Mapping[str, torch.Size]
    """Of each parameter that was trained."""
    schedule: bool
    """Whether a learning rate's schedule is kept."""
    notes: tuple[str, ...]
    """Contradictions, a line each."""
    form: str | None = None
    """What it is, where it is not ZeRO's."""

    def how(self) -> str:
        """`zero2 on 4 ranks`."""
        if self.form is not None:
            return self.form
        stage = "ZeRO" if self.stage is None else f"zero{self.stage}"
        return f"{stage} on {self.ranks} {'rank' if self.ranks == 1 else 'ranks'}"


def instead(directory: Path) -> str:
    """The way that is left where training cannot go on."""
    return f"its weights alone begin a new training: init_from={directory}"


def tag_of(directory: Path) -> Path:
    """Where the states lie: the tag that `latest` names, or here. Raises UserError where there are none."""
    with said_of_resume(directory):
        tag = tag_directory(directory)
    if tag is None:
        names = sorted(path.name for path in directory.iterdir())
        there = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "") if names else "nothing"
        inside = [path for path in sorted(directory.iterdir()) if path.is_dir() and any(path.glob("*_states.pt"))]
        weights = any(name.endswith((".safetensors", *PICKLES)) for name in names)
        hint = f"; did you mean {inside[-1]}?" if inside else f"; {instead(directory)}" if weights else ""
        raise UserError(
            f"--resume: {directory} is no run, and no DeepSpeed checkpoint: it has neither {LATEST} nor *_states.pt; "
            f"there is {there}{hint}"
        )
    return tag.absolute()


def read_position(directory: Path) -> Written:
    """What a directory in the canonical form says. Raises UserError where it does not say at which step it stands."""
    state, facts = read_state_file(directory), read_manifest(directory).facts
    if state.step is None or not state.counts | state.schedule:
        raise UserError(f"--resume: {directory} has no optimizer to go on with; {instead(directory)}")
    ranks = facts.get("world_size")
    return Written(
        tag=directory,
        stage=None,
        ranks=ranks if isinstance(ranks, int) else 1,
        step=state.step,
        epoch=None,
        batch=None,
        shapes={},
        schedule=False,
        notes=(),
        form="the canonical form",
    )


def read_written(tag: Path, trust: bool) -> Written:
    """What the files of a tag say, and those beside it. Raises UserError where any is missing or cannot be read."""
    with said_of_resume(tag):
        models, optimizers = _names(tag)
        first = tag / models[0]
        model = load(first, trust=trust)
        if not isinstance(model, dict) or not isinstance(model.get("param_shapes"), list):
            raise UserError(f"{first} has no param_shapes: DeepSpeed's ZeRO did not write it; {instead(tag)}")
        _refuse_missing(tag, models, optimizers, _whole(model.get("dp_world_size")))
        shapes = {name: torch.Size(shape) for group in model["param_shapes"] for name, shape in group.items()}
        step, epoch, notes = _position(tag, model, trust)
        samples, own = _whole(model.get("global_samples")), _whole(model.get("global_steps"))
        config = model.get("ds_config")
        stage = config.get("zero_optimization", {}).get("stage") if isinstance(config, dict) else None
        return Written(
            tag=tag,
            stage=3 if PART.fullmatch(first.name) else _whole(stage),
            ranks=len(optimizers),
            step=step,
            epoch=epoch,
            batch=samples // own if samples and own and samples % own == 0 else None,
            shapes=shapes,
            schedule=model.get("lr_scheduler") is not None,
            notes=notes,
        )


@contextmanager
def said_of_resume(tag: Path) -> Iterator[None]:
    """Errors of reading become one line that begins with --resume, where `init_from` has the same readers."""
    try:
        yield
    except UserError as error:
        raise UserError(f"--resume: {str(error).removeprefix('init_from: ').removeprefix('--resume: ')}") from None
    except BROKEN as error:
        raise UserError(
            f"--resume: {tag} is not as DeepSpeed 0.19 writes it: {type(error).__name__}: "
            f"{' '.join(str(error).split())[:200]}; {instead(tag)}"
        ) from None


def _names(tag: Path) -> tuple[list[str], list[str]]:
    """Of the files of model states, and of optimizer states. Raises UserError where there are none of either."""
    if not tag.is_dir():
        raise UserError(f"{tag} is not there any more")
    names = sorted(path.name for path in tag.iterdir())
    models = [name for name in names if WHOLE.fullmatch(name) or PART.fullmatch(name)]
    optimizers = [name for name in names if OPTIMIZER.fullmatch(name)]
    if not models:
        raise UserError(f"{tag} has no model states: neither mp_rank_00_model_states.pt nor zero_pp_rank_0_*")
    if not optimizers:
        raise UserError(f"{tag} has no optimizer states (*_optim_states.pt), so training cannot go on; {instead(tag)}")
    by_rank(tag, WHOLE)  # raises for what is of a tensor-parallel model
    return models, optimizers


def _refuse_missing(tag: Path, models: list[str], optimizers: list[str], size: int | None) -> None:
    """Raise UserError that names the first file that one of the ranks wrote and that is not there."""
    numbers = [int(match["rank"]) for match in map(OPTIMIZER.fullmatch, optimizers) if match]
    ranks = max(1 + max(numbers), size or 0)
    spread = [name for name in models if PART.fullmatch(name)]
    for names in (spread, optimizers):
        for rank in range(ranks) if names else ():
            wanted = re.sub(r"zero_pp_rank_\d+", f"zero_pp_rank_{rank}", names[0])
            if wanted not in names:
                raise UserError(f"{tag} is incomplete: {wanted} is missing, and {ranks} ranks wrote it")


def _position(tag: Path, model: Mapping[str, Any], trust: bool) -> tuple[int, float | None, tuple[str, ...]]:
    """Step, epoch, and a line for each file that says another step.

    Trainer's own count comes first, which goes on through a change of engines; then DeepSpeed's, then the program's.
    """
    trainer, client = _beside(tag, TRAINER), _beside(tag, CLIENT)
    program: Any = {key: value for key, value in model.items() if key in ("global_step", "step", "epoch")}
    if client is not None:
        program = load(client, trust=trust)
        if not isinstance(program, dict):
            raise UserError(f"{client} holds a {type(program).__name__}, not a dict with step and epoch")
    counts: dict[str, int | None] = {}
    if trainer is not None:
        counts[TRAINER] = _whole(json.loads(read_limited(trainer)).get("global_step"))
    counts["DeepSpeed"] = _whole(model.get("global_steps"))
    counts[CLIENT if client is not None else "the client state"] = next(
        (step for step in (_whole(program.get(key)) for key in STEPS) if step is not None), None
    )
    said = {name: step for name, step in counts.items() if step is not None}
    if not said:
        raise UserError(f"{tag} does not say its step: DeepSpeed's global_steps, or step in {CLIENT}")
    name, step = next(iter(said.items()))
    notes = tuple(
        f"{other} says step {count}, {name} {step}: {step} is taken" for other, count in said.items() if count != step
    )
    epoch = program.get("epoch")
    return step, float(epoch) if isinstance(epoch, (int, float)) and not isinstance(epoch, bool) else None, notes


def _beside(tag: Path, name: str) -> Path | None:
    """A file in the tag, or beside it where `latest` names this very tag."""
    if (tag / name).is_file():
        return tag / name
    latest = tag.parent / LATEST
    if (tag.parent / name).is_file() and latest.is_file():
        named = read_limited(latest, 4096).decode("utf-8", errors="replace").strip()
        return tag.parent / name if named == tag.name else None
    return None


def _whole(value: Any) -> int | None:
    """A number of steps, ranks or samples; null for anything else."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
