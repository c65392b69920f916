"""Going on from a checkpoint, whatever strategy, precision and number of ranks wrote it.

The engines' own loading is not used even where it could be: DeepSpeed's ZeRO-1 and 2 and torch's DDP would have every
rank read the whole model, or optimizer, into memory of its own; here ranks of a host share the file's pages.
"""

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
from zerofit.train.optimizers import group_names

if TYPE_CHECKING:
    from zerofit.train.trainer import RunTrainer

REMEMBERED = (
    "global_step",
    "epoch",
    "best_metric",
    "best_global_step",
    "best_model_checkpoint",
    "total_flos",
    "log_history",
)
"""Of Trainer's state, what goes on; the rest follows from the run's plan."""


def take_over(trainer: RunTrainer, checkpoint: Path) -> None:
    """Put the checkpoint's state into the trainer's engine, prepared and before its first step. Collective."""
    state = read_state(checkpoint, group_names(trainer.classifier, trainer.spec))
    trainer.engine.restore(trainer.classifier, trainer.model_wrapped, trainer.optimizer, state)
    with torch.no_grad():
        for name, buffer in trainer.classifier.named_buffers():
            if name in state.buffers:
                buffer.copy_(state.buffers[name]())
    scaler = trainer.accelerator.scaler
    if scaler is not None and state.loss_scale is not None:
        good = state.loss_scale.good_steps % scaler.get_growth_interval()
        scaler.load_state_dict({**scaler.state_dict(), "scale": state.loss_scale.scale, "_growth_tracker": good})
    assert trainer.lr_scheduler is not None
    assert trainer.optimizer is not None
    trainer.lr_scheduler.load_state_dict(dict(state.schedule))
    for group, rate in zip(trainer.optimizer.param_groups, trainer.lr_scheduler.get_last_lr(), strict=True):
        group["lr"] = rate
    then = TrainerState.load_from_json(str(checkpoint / TRAINER_STATE_NAME))
    for name in REMEMBERED:
        setattr(trainer.state, name, getattr(then, name))
    trainer.engine.stand_at(trainer.model_wrapped, then.global_step)
    trainer._globalstep_last_logged = then.global_step  # else the first loss would be divided by all steps so far
    draw_on(checkpoint)


def draw_on(checkpoint: Path) -> None:
    """Go on with each rank's random numbers, where there are as many ranks; others drop other activations anyway."""
    ranks = dist.get_world_size()
    if read_manifest(checkpoint).facts.get("world_size") != ranks:
        return
    name = "rng_state.pth" if ranks == 1 else f"rng_state_{dist.get_rank()}.pth"
    with safe_globals():
        states = torch.load(checkpoint / name, weights_only=True)
    torch.set_rng_state(states["cpu"])
    if torch.cuda.is_available() and "cuda" in states:
        mine = states["cuda"]  # transformers keeps a list of all that the rank saw, where there are several ranks
        if isinstance(mine, list):
            mine = mine[torch.cuda.current_device()] if torch.cuda.current_device() < len(mine) else mine[0]
        torch.cuda.set_rng_state(mine)
