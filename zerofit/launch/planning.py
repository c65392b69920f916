"""`zerofit plan`: what `zerofit train` would do, resolved and said, with nothing started; and its strategy as files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import yaml

from zerofit.config.errors import UserError
from zerofit.config.load import load_job
from zerofit.config.schema import Recipe
from zerofit.config.strategy import ZERO_STAGE
from zerofit.launch import rundir
from zerofit.launch.dispatch import count_ranks
from zerofit.launch.origin import resolve
from zerofit.plan.accelerate_write import accelerate_config, deepspeed_config, script_arguments
from zerofit.plan.build import make_plan
from zerofit.plan.hardware import detect
from zerofit.plan.spec import RunSpec, origin_of
from zerofit.plan.strategy import resolve_strategy
from zerofit.report import planned


def plan(
    source: str,
    overrides: Sequence[str] = (),
    *,
    nproc: int | None = None,
    stage: int | None = None,
    accelerate: Path | None = None,
    deepspeed: Path | None = None,
    force: bool = False,
) -> str:
    """The plan of a recipe, or of each of its stages, in words; writes the strategy's files where they are asked for.

    `stage` is the number, from 1, of the one to plan. Raises UserError where `zerofit train` would, where a strategy
    cannot be said in such a file, and for files that exist, unless `force`.
    """
    job = load_job(source, overrides)
    recipes = list(job.stages)
    if stage is not None:
        if not 1 <= stage <= len(recipes):
            raise UserError(f"--stage {stage}: {source} has {len(recipes)} stages, counted from 1")
        recipes = [recipes[stage - 1]]
    if len(recipes) > 1 and (accelerate or deepspeed):
        raise UserError(
            f"{source} has {len(recipes)} stages, each with a strategy of its own: say which with --stage N"
        )
    words: list[str] = []
    for recipe in recipes:
        spec, ranks_from = _planned(recipe, nproc)
        follows = recipe is not job.stages[0] and recipe.init_from is None
        weights = "those of the stage before" if follows else origin_of(spec)
        words += [f"{recipe.name}", planned.table(spec, weights, ranks_from), ""]
    written = _files(spec, accelerate, deepspeed)
    for path, _ in written:
        if path.exists() and not force:
            raise UserError(f"{path} exists: name another file, or give --force to write over it")
    for path, text in written:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        words.append(f"written: {path}")
    if written:
        words.append("a script of transformers' Trainer or of TRL does the same with:")
        words.append("  " + " ".join(script_arguments(spec)))
        if spec.recipe.optimizer.name != "adamw":
            words.append(f"  and with an optimizer of its own: {spec.recipe.optimizer.name} is no part of these files")
    return "\n".join(words).rstrip()


def _planned(recipe: Recipe, nproc: int | None) -> tuple[RunSpec, str]:
    """The plan, and who has asked for so many ranks."""
    from zerofit.tasks import TASKS

    hardware, chosen = detect(), resolve_strategy(recipe)
    ranks = count_ranks(chosen, nproc, hardware, recipe.train)
    asked = "--nproc" if nproc is not None else "the strategy's file" if chosen.ranks is not None else None
    spec = make_plan(
        recipe,
        facts=TASKS[recipe.task].describe(recipe),
        hardware=hardware,
        ranks=ranks,
        run_dir=next(rundir.candidates(str(recipe.name), recipe.run_dir)),
        origin=None if recipe.init_from is None else resolve(recipe.init_from),
        chosen=chosen,
    )
    return spec, asked or ("one alone" if spec.strategy.name == "single" else "as many as divide the global batch")


def _files(spec: RunSpec, accelerate: Path | None, deepspeed: Path | None) -> list[tuple[Path, str]]:
    """What is to be written where. An accelerate file of a ZeRO strategy names DeepSpeed's, which is written beside."""
    files: list[tuple[Path, str]] = []
    if accelerate is not None and spec.strategy.name in ZERO_STAGE:
        deepspeed = deepspeed or accelerate.with_name(f"{accelerate.stem}.deepspeed.json")
    if deepspeed is not None:
        files.append((deepspeed, json.dumps(deepspeed_config(spec), indent=2) + "\n"))
    if accelerate is not None:
        config = accelerate_config(spec, str((deepspeed or accelerate).absolute()))
        told = "\n".join(f"#   {word}" for word in script_arguments(spec))
        head = f"# accelerate launch --config_file {accelerate} SCRIPT, where SCRIPT is told:\n{told}\n"
        files.append((accelerate, head + yaml.safe_dump(config, sort_keys=True)))
    return files
