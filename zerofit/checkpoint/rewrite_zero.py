"""A DeepSpeed checkpoint of any program, written anew for another ZeRO stage or number of ranks by DeepSpeed itself."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from zerofit.models.zero_anatomy import ZeroAnatomy, zero_anatomy
from zerofit.models.zero_states import zero_states
from zerofit.train.restoring import restore_zero_1_2, restore_zero_3
from zerofit.train.skeleton import Held, HeldSchedule, skeleton
from zerofit.train.state import TrainingState


def rewrite_zero(tag: Path, stage: int, output: Path) -> None:
    """Write the checkpoint in `tag` to `output`/`tag.name` for ZeRO `stage` on as many ranks as there are. Collective.

    Raises UserError where the checkpoint cannot be read.
    """
    import deepspeed

    anatomy, stored = zero_anatomy(tag), zero_states(tag)
    module = skeleton(anatomy)
    engine: Any = deepspeed.initialize(
        model=module, optimizer=Held(module, anatomy), config=_config(anatomy, stage), dist_init_required=False
    )[0]
    state = TrainingState(stored.weights, stored.moments, stored.counts)
    (restore_zero_3 if stage == 3 else restore_zero_1_2)(engine, state)
    base, groups = engine.optimizer.optimizer, _flat(engine, stage)
    for number, flat in groups:
        if anatomy.kept[number]:
            base.state[flat].update(anatomy.kept[number])  # in the types that the program's optimizer gave them
    engine.lr_scheduler = None if anatomy.schedule is None else HeldSchedule(anatomy.schedule)
    for name, count in anatomy.counters.items():
        setattr(engine, name, count)
    engine.save_checkpoint(str(output), tag=tag.name, client_state=dict(anatomy.client))
    dist.barrier()


def _flat(engine: Any, stage: int) -> list[tuple[int, torch.Tensor]]:
    """This rank's flat shards, each with the number of its optimizer group."""
    zero = engine.optimizer
    if stage == 3:
        return [(zero.sub_group_to_group_id[part], flat) for part, flat in enumerate(zero.fp32_partitioned_groups_flat)]
    return [(number, group["params"][0]) for number, group in enumerate(zero.optimizer.param_groups)]


def _config(anatomy: ZeroAnatomy, stage: int) -> dict[str, Any]:
    """What DeepSpeed is given here: all that its files depend on is the program's."""
    config: dict[str, Any] = {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "zero_optimization": {"stage": stage},
        "bf16": {"enabled": anatomy.dtype == torch.bfloat16},
        "steps_per_print": sys.maxsize,
    }
    if "data_types" in anatomy.config:
        config["data_types"] = anatomy.config["data_types"]  # ZeRO-1 has another optimizer where bf16 adds up in fp32
    if anatomy.clip is not None:
        config["gradient_clipping"] = anatomy.clip
    return config
