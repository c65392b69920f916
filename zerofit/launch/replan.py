"""A run that goes on under another strategy, or on another number of ranks: the same training, planned again."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from zerofit.config.changes import changed_fields
from zerofit.config.errors import UserError
from zerofit.config.schema import Recipe
from zerofit.config.strategy import AUTO
from zerofit.launch.alternatives import row_of
from zerofit.launch.dispatch import default_ranks
from zerofit.plan.auto import is_open, nearest_micro
from zerofit.plan.build import make_plan
from zerofit.plan.choice import Choice
from zerofit.plan.files import DEEPSPEED_FILE, RUN_FILE, write_spec
from zerofit.plan.spec import Hardware, RunSpec, named
from zerofit.plan.strategy import Chosen, planned_again, resolve_strategy

FREE = ("strategy.", "hardware.", "train.micro_batch:", "evaluate.micro_batch:", "checkpoint.async_save:")
"""What may change: how the work is spread and saved, not what is computed."""
EARLIER = "earlier"


def replan(run: Path, old: RunSpec, asked: Recipe, hardware: Hardware, ranks: int | None) -> RunSpec:
    """The plan with which `run` goes on: `old` itself where nothing changes.

    `ranks` null: as many as before, if there are so many GPUs. Raises UserError for another recipe or device, and where
    the new plan is impossible.
    """
    changes = [line for line in changed_fields(old.recipe, asked) if not line.startswith("run_dir:")]
    fixed = [line for line in changes if not line.startswith(FREE)]
    if fixed:
        raise UserError(
            "\n".join(
                [f"{run} goes on with the recipe that it was started with, strategy apart; these differ:", *fixed]
            )
        )
    if hardware.device != old.hardware.device:
        raise UserError(f"{run} was planned for {old.hardware.device}, but this machine offers {hardware.device}")
    # What a file said when the run began still holds: it is in the plan, and is not read again.
    chosen = planned_again(old.strategy) if asked.strategy == old.recipe.strategy else _chosen(old, asked)
    ranks = ranks or chosen.ranks or _ranks(old, chosen.strategy.name, asked, hardware)
    if not changes and ranks == old.batches.ranks:
        return old
    micro = nearest_micro(asked, ranks, old.batches.micro) if asked.train.micro_batch == AUTO else None
    spec = make_plan(
        asked,
        facts=old.data,
        hardware=hardware,
        ranks=ranks,
        run_dir=old.run_dir,
        origin=old.origin,
        origin_step=old.origin_step,
        trust=old.trust,
        chosen=chosen,
        micro=micro,
    )
    return spec.model_copy(update={"choice": kept(spec)}) if is_open(asked) else spec


def _chosen(old: RunSpec, asked: Recipe) -> Chosen:
    """The strategy of a run that goes on under another one: what is left to the planner stays as it was chosen."""
    said, before = asked.strategy, old.strategy
    recomputed = before.activation_checkpointing
    if said.name == AUTO:
        offload = before.offload.model_copy(update={"pin_memory": said.offload.pin_memory})
        fields: dict[str, Any] = {"name": before.name, "offload": offload.model_dump()}
        if said.activation_checkpointing == AUTO:
            fields["activation_checkpointing"] = recomputed
        return Chosen(named(said, **fields))
    chosen = resolve_strategy(asked)
    if said.name is None or said.activation_checkpointing != AUTO:
        return chosen
    return replace(chosen, strategy=named(chosen.strategy, activation_checkpointing=recomputed))


def kept(spec: RunSpec) -> Choice:
    """What is said of a choice that was made when the run began."""
    return Choice(why=f"kept as the run was begun: {row_of(spec).words}")


def _ranks(old: RunSpec, now: str, asked: Recipe, hardware: Hardware) -> int:
    before = old.strategy.name
    lost = hardware.device == "cuda" and hardware.count < old.batches.ranks
    if lost or "single" in (before, now) and before != now:
        return default_ranks(now, hardware, asked.train)
    return old.batches.ranks


def put_in_place(new: RunSpec, step: int) -> None:
    """Make `new` the run's plan from `step` on; the plan so far is kept beside, in earlier/run-000500.json."""
    kept = new.run_dir / EARLIER
    kept.mkdir(exist_ok=True)
    shutil.copyfile(new.run_dir / RUN_FILE, kept / f"run-{step:06d}.json")
    write_spec(new)
    if new.deepspeed is None:
        (new.run_dir / DEEPSPEED_FILE).unlink(missing_ok=True)


def said(facts: Mapping[str, Any], new: RunSpec, step: int) -> str:
    """What goes on how, in a line; `facts` are those in the checkpoint's manifest."""
    before = how(facts["strategy"], facts["world_size"])
    now = how(new.strategy.name, new.batches.ranks)
    return f"goes on from step {step}: what {before} wrote is taken over by {now}"


def how(strategy: str, ranks: int) -> str:
    """`ddp on 2 ranks`."""
    return f"{strategy} on {ranks} {'rank' if ranks == 1 else 'ranks'}"
