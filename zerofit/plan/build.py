"""From a recipe to the resolved run: everything derived is derived here, once, before any process starts."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
from pathlib import Path

from zerofit.config.errors import UserError
from zerofit.config.schema import Recipe
from zerofit.config.strategy import ZERO_STAGE
from zerofit.plan.auto import micro_by_rule
from zerofit.plan.batch import make_batches, peak_rate
from zerofit.plan.cap import capped
from zerofit.plan.deepspeed import make_deepspeed
from zerofit.plan.grpo import make_sizes
from zerofit.plan.precision import resolve_precision
from zerofit.plan.rollout_engine import resolve_engine
from zerofit.plan.shapes import resolve_shape
from zerofit.plan.spec import Hardware, ImageFacts, RunSpec, TextFacts
from zerofit.plan.strategy import Chosen, resolve_strategy
from zerofit.plan.versions import git_revision, versions

# Below: gradients are clipped unasked, and gradients of micro-batches get lost; above: not read yet.
OLDEST_DEEPSPEED, NEXT_DEEPSPEED = (0, 19, 3), (0, 20)
INSTALL_DEEPSPEED = "pip install 'deepspeed>=0.19.3,<0.20'"


def make_plan(
    recipe: Recipe,
    *,
    facts: ImageFacts | TextFacts,
    hardware: Hardware,
    ranks: int,
    run_dir: Path,
    origin: Path | None = None,
    origin_step: int | None = None,
    trust: bool = False,
    chosen: Chosen | None = None,
    micro: int | None = None,
    here: bool = True,
    like: RunSpec | None = None,
) -> RunSpec:
    """The resolved run of `recipe` on `ranks` ranks; `origin` is what its `init_from` has been found to name.

    With `origin_step` training goes on from there, at that step. `chosen` is what its strategy has been found to be;
    null: it is found out here. `micro` is the micro-batch; null: the recipe's, or where that is left open a rule's.
    Without `here` it is for another machine: what is installed on this one does not count.
    Versions and revision are those of `like`, where it is given, and not looked up.

    Raises UserError, one line, where the recipe cannot run so: see `_check_strategy`, and the functions called.
    """
    assert ranks >= 1, "a run has at least one rank"
    chosen = chosen or resolve_strategy(recipe)
    _check_strategy(chosen.strategy.name, hardware, ranks)
    if here:
        _check_deepspeed(chosen.strategy.name)
        _check_quantised(recipe)
        _check_trackers(recipe.track.to)
    hardware = capped(hardware, recipe.hardware.memory_cap)
    precision = resolve_precision(chosen.strategy.precision, hardware)
    batches = make_batches(recipe, facts, ranks, micro or micro_by_rule(recipe, facts, ranks))
    _check_profile(recipe, batches.total_steps)
    return RunSpec(
        recipe=recipe,
        strategy=chosen.strategy,
        run_dir=run_dir.absolute(),
        data=facts,
        hardware=hardware,
        batches=batches,
        grpo=make_sizes(recipe, facts, batches),
        rollout_engine=resolve_engine(recipe, hardware),
        lr=peak_rate(recipe.optimizer, batches.global_batch),
        precision=precision,
        shape=resolve_shape(recipe.model),
        origin=origin,
        origin_step=origin_step,
        trust=trust,
        deepspeed=make_deepspeed(recipe, chosen, batches, precision, hardware),
        versions=versions() if like is None else like.versions,
        git=git_revision() if like is None else like.git,
    )


def _check_strategy(name: str, hardware: Hardware, ranks: int) -> None:
    """Raise UserError where the hardware cannot run the strategy on so many ranks."""
    if name == "single" and ranks > 1:
        raise UserError(f"strategy single runs on 1 rank, not {ranks}: use ddp, fsdp2 or a ZeRO strategy")
    if hardware.device == "cuda" and 0 < hardware.count < ranks:
        gpus = "1 GPU" if hardware.count == 1 else f"{hardware.count} GPUs"
        raise UserError(f"{ranks} ranks need as many GPUs, and this process sees {gpus}: use {hardware.count} or fewer")
    if name == "zeropp" and hardware.device != "cuda":
        raise UserError("strategy zeropp needs NVIDIA GPUs: its quantisation exists as CUDA kernels alone; use zero3")


def _check_deepspeed(name: str) -> None:
    """Raise UserError where the strategy is DeepSpeed's, and that is not installed, or another release."""
    if name not in ZERO_STAGE:
        return
    if importlib.util.find_spec("deepspeed") is None:
        raise UserError(f"strategy {name} needs DeepSpeed, which is not installed: {INSTALL_DEEPSPEED}")
    version = importlib.metadata.version("deepspeed")
    if not OLDEST_DEEPSPEED <= tuple(int(part) for part in re.findall(r"\d+", version)[:3]) < NEXT_DEEPSPEED:
        raise UserError(f"strategy {name} is not made for DeepSpeed {version}, which is installed: {INSTALL_DEEPSPEED}")


def _check_quantised(recipe: Recipe) -> None:
    """Raise UserError where weights in 4 bits are asked for, and what packs them is not installed."""
    if recipe.quantised and importlib.util.find_spec("bitsandbytes") is None:
        raise UserError(
            "model.quantize needs bitsandbytes, which is not installed: pip install 'zerofit[quantized]', or leave "
            "model.quantize out"
        )


def _check_trackers(names: tuple[str, ...]) -> None:
    """Raise UserError for a tracker that is not installed, before anything has begun."""
    for name in names:
        found = importlib.util.find_spec(name)
        if found is None or found.origin is None:  # a directory of that name, say wandb's files, is no package
            raise UserError(f"track.to: {name} is not installed: pip install 'zerofit[{name}]', or leave it out")


def _check_profile(recipe: Recipe, total: int) -> None:
    """Raise UserError for a window of steps that the run does not take."""
    if recipe.profile is None:
        return
    if recipe.probe is not None and recipe.probe.features == "cached":
        raise UserError("profile: a probe on cached features is not traced; use probe.features=online, or leave it out")
    last = recipe.profile.steps[1]
    if last > total:
        raise UserError(f"profile.steps: step {last} is beyond the run's last, {total}; use steps up to {total}")
