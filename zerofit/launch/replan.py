"""A run that goes on under another strategy, or on another number of ranks: the same training, planned again."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zerofit.config.changes import changed_fields
from zerofit.config.errors import UserError
from zerofit.config.schema import Recipe
from zerofit.launch.dispatch import default_ranks
from zerofit.plan.build import make_plan
from zerofit.plan.files import DEEPSPEED_FILE, RUN_FILE, write_spec
from zerofit.plan.spec import Hardware, RunSpec
from zerofit.plan.strategy import planned_again, resolve_strategy

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
    chosen = planned_again(old.strategy) if asked.strategy == old.recipe.strategy else resolve_strategy(asked)
    ranks = ranks or chosen.ranks or _ranks(old, chosen.strategy.name, asked, hardware)
    if not changes and ranks == old.batches.ranks:
        return old
    return make_plan(
        asked,
        facts=old.data,
        hardware=hardware,
        ranks=ranks,
        run_dir=old.run_dir,
        origin=old.origin,
        origin_step=old.origin_step,
        trust=old.trust,
        chosen=chosen,
    )


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
