"""`zerofit train RECIPE --resume DIR`: a new run that goes on where a checkpoint without one stands.

One that another program wrote with DeepSpeed, or one in the canonical form (`zerofit convert --to safetensors`).
"""

from __future__ import annotations

from pathlib import Path

from zerofit.checkpoint.canonical import is_canonical
from zerofit.checkpoint.foreign_files import instead, read_position, read_written, tag_of
from zerofit.checkpoint.foreign_resume import Fitted, fitted
from zerofit.checkpoint.manifest import NAME, verify
from zerofit.config.errors import UserError
from zerofit.config.schema import Recipe
from zerofit.launch.reference import in_one_line
from zerofit.launch.replan import how
from zerofit.models.frozen import FROZEN, trains_a_part
from zerofit.models.origin import first
from zerofit.plan.spec import RunSpec

OPTIMIZERS = {"adamw": "AdamW", "sgd": "SGD", "lars": "LARS"}


def resolve(asked: Path, recipe: Recipe, trust: bool) -> tuple[Path, int]:
    """The absolute directory of the states, where `latest` pointed now, and the step that they say.

    Raises UserError where there are none, and for recipes that cannot go on from them.
    """
    directory = asked.expanduser().resolve()
    if recipe.init_from is not None:
        raise UserError(
            f"--resume {asked} takes weights and optimizer from there, and the recipe's init_from: {recipe.init_from} "
            "weights from elsewhere: leave one of them out"
        )
    if recipe.model.lora is not None:
        raise UserError(f"--resume: {asked} has no adapters that model.lora could go on with; {instead(directory)}")
    if recipe.probe is not None and recipe.probe.features == "cached":
        raise UserError(f"--resume: {asked} has steps to go on from, and cached features none; {instead(directory)}")
    if (directory / NAME).is_file():
        faults = verify(directory)
        if faults:
            raise UserError(f"--resume: {asked} is damaged: {in_one_line(faults)}")
    if is_canonical(directory):
        if trains_a_part(recipe):
            raise UserError(
                f"--resume: {asked} does not say on which frozen weights it was trained; go on with its run"
            )
        return directory, read_position(directory).step
    tag = tag_of(directory)
    if (directory / FROZEN).is_file() or (tag.parent / FROZEN).is_file():
        raise UserError(f"--resume: {asked} holds what was trained alone, not the frozen rest: go on with its run")
    return tag, read_written(tag, trust).step


def check(spec: RunSpec) -> list[str]:
    """What is said of going on from `spec.origin`: how, and what is not taken. Raises UserError where it cannot be."""
    found = fitted(spec)
    step, total = spec.origin_step, spec.batches.total_steps
    if found.written.step != step:
        raise UserError(f"--resume: {spec.origin} stands at step {found.written.step} now, no longer at {step}")
    if step == 0:
        raise UserError(f"--resume: {spec.origin} is from before the first step; {instead(found.written.tag)}")
    if step >= total:
        raise UserError(
            f"--resume: {spec.origin} stands at step {step}, and the recipe has {total} in all: nothing is left to "
            "train; raise train.max_steps or train.epochs"
        )
    return said(spec, found)


def said(spec: RunSpec, found: Fitted) -> list[str]:
    """Lines for the terminal."""
    written, sizes = found.written, spec.batches
    name, count = OPTIMIZERS[spec.recipe.optimizer.name], len(found.state.moments)
    lines = [
        f"goes on from step {written.step}: weights and {name} moments of {count} parameters from {spec.origin} "
        f"({written.how()}) are taken over by {how(spec.strategy.name, sizes.ranks)}",
        *written.notes,
    ]
    if found.dropped:
        lines.append(
            f"moments of {len(found.dropped)} parameters that are frozen here are dropped: {first(found.dropped)}"
        )
    if written.schedule:
        lines.append("its learning rate schedule is not taken: the recipe's holds, at that step")
    if written.batch is not None and written.batch != sizes.global_batch:
        lines.append(f"its steps took {written.batch} samples, the recipe's take {sizes.global_batch}")
    epoch = written.step / sizes.steps_per_epoch
    if written.epoch is not None and abs(written.epoch - epoch) > 1:
        lines.append(
            f"its epoch is {written.epoch:g}; in the recipe's order of samples that step is in epoch {epoch:.1f}"
        )
    return lines
