"""Going on from a checkpoint of another strategy, precision or number of ranks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist
from transformers import TrainerState
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_pt_utils import safe_globals

from zerofit.checkpoint.manifest import read_manifest
from zerofit.checkpoint.native import read_state
from zerofit.checkpoint.store import written_as
from zerofit.plan.spec import RunSpec
from zerofit.train.optimizers import group_names

if TYPE_CHECKING:
    from zerofit.train.trainer import RunTrainer

REMEMBERED = ("global_step", "epoch", "best_metric", "best_global_step", "best_model_checkpoint", "total_flos")
"""Of Trainer's state, what goes on; the rest follows from the run's plan."""


def is_native(checkpoint: Path, spec: RunSpec) -> bool:
    """Whether the run's own engine wrote the checkpoint, on as many ranks, and so can load it by itself."""
    facts, own = read_manifest(checkpoint).facts, written_as(spec)
    return all(facts.get(name, value) == value for name, value in own.items())  # precision: not in older manifests


def take_over(trainer: RunTrainer, checkpoint: Path) -> None:
    """Put the checkpoint's state into the trainer's engine, prepared and before its first step. Collective."""
    state = read_state(checkpoint, group_names(trainer.classifier, trainer.spec))
    trainer.engine.restore(trainer.classifier, trainer.model_wrapped, trainer.optimizer, state)
    with torch.no_grad():
        for name, buffer in trainer.classifier.named_buffers():
            if name in state.buffers:
                buffer.copy_(state.buffers[name]())
    assert trainer.lr_scheduler is not None
    assert trainer.optimizer is not None
    trainer.lr_scheduler.load_state_dict(dict(state.schedule))
    for group, rate in zip(trainer.optimizer.param_groups, trainer.lr_scheduler.get_last_lr(), strict=True):
        group["lr"] = rate
    then = TrainerState.load_from_json(str(checkpoint / TRAINER_STATE_NAME))
    for name in REMEMBERED:
        setattr(trainer.state, name, getattr(then, name))
    trainer._globalstep_last_logged = then.global_step  # else the first loss would be divided by all steps so far
    _draw_on(checkpoint)


def _draw_on(checkpoint: Path) -> None:
    """Go on with each rank's random numbers, where there are as many ranks; others drop other activations anyway."""
    ranks = dist.get_world_size()
    if read_manifest(checkpoint).facts["world_size"] != ranks:
        return
    name = "rng_state.pth" if ranks == 1 else f"rng_state_{dist.get_rank()}.pth"
    with safe_globals():
        states = torch.load(checkpoint / name, weights_only=True)
    torch.set_rng_state(states["cpu"])
    if torch.cuda.is_available() and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"])
