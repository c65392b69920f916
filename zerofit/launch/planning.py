"""`zerofit plan`: what `zerofit train` would do, resolved and said, with nothing started; and its strategy as files."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import yaml

from zerofit.config.errors import UserError
from zerofit.config.load import load_job
from zerofit.config.schema import Recipe
from zerofit.config.strategy import ZERO_STAGE
from zerofit.launch import rundir
from zerofit.launch.alternatives import alternatives
from zerofit.launch.asked import HERE, Asked, Machine
from zerofit.launch.choosing import choose
from zerofit.launch.predicting import Played, Timed, outlooks
from zerofit.launch.reference import split
from zerofit.plan.accelerate_write import accelerate_config, deepspeed_config, script_arguments
from zerofit.plan.answer import Outlook, Plan, StagePlan
from zerofit.plan.assumed import assumed_facts, missing, said
from zerofit.plan.build import make_plan
from zerofit.plan.hardware import detect
from zerofit.plan.spec import ImageFacts, RunSpec, TextFacts, origin_of
from zerofit.plan.strategy import resolve_strategy
from zerofit.report import planned
from zerofit.report.outlook import choice, table


@dataclass(frozen=True)
class Staged:
    """A stage, planned."""

    spec: RunSpec
    machine: Machine
    ranks_from: str
    """Who has asked for so many ranks."""
    assumed: str | None
    """What was assumed of data that is not there."""
    weights: str
    """Where they come from."""
    base: RunSpec
    """The plan of a rule, out of which `spec` was chosen; itself where nothing is left to choose."""


def plan(
    source: str,
    overrides: Sequence[str] = (),
    *,
    nproc: int | None = None,
    stage: int | None = None,
    asked: Asked = HERE,
    played: Played = "own",
    accelerate: Path | None = None,
    deepspeed: Path | None = None,
    html: Path | None = None,
    force: bool = False,
    draft: Callable[[str], None] = lambda text: None,
) -> tuple[Plan, str]:
    """The plan of a recipe, or of each of its stages: as it is, and in words; writes the files that are asked for.

    `stage` is the number, from 1, of the one to plan; `asked` another machine than this. Memory is
    predicted by formulas, and `played` says of which strategies a step is played through besides; `draft` gets what
    formulas say first. Raises UserError where `zerofit train` would (but for
    data and weights that are not here), where a strategy cannot be said in such a file, and for files that exist,
    unless `force`.
    """
    job = load_job(source, overrides)
    if stage is None and len(job.stages) > 1 and (accelerate or deepspeed):
        raise UserError(
            f"{source} has {len(job.stages)} stages, each with a strategy of its own: say which with --stage N"
        )
    staged = [
        staged_plan(recipe, asked, nproc, follows=recipe is not job.stages[0])
        for recipe in chosen_stages(source, job.stages, stage)
    ]
    written = _files(staged[-1].spec, accelerate, deepspeed)
    _check_free(written, html, force)
    answer = Plan(recipe=source, stages=tuple(outlook(one, nproc) for one in staged))
    if played != "none" and any(one.strategies for one in answer.stages):
        draft(_words(answer, staged))
        timed = [
            (chosen(one, timing), timing) for one, timing in ((one, Timed(one.machine.calibration)) for one in staged)
        ]
        staged = [one for one, _ in timed]
        exact = tuple(outlook(one, nproc, played, timing) for one, timing in timed)
        answer = answer.model_copy(update={"stages": exact})
        written = _files(staged[-1].spec, accelerate, deepspeed)
        _check_free(written, html, force)
    words = [_words(answer, staged)]
    for path, text in written:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        words.append(f"written: {path}")
    if html is not None:
        draw(answer, html)
        words.append(f"written: {html}")
    if written:
        spec = staged[-1].spec
        words.append("a script of transformers' Trainer or of TRL does the same with:")
        words.append("  " + " ".join(script_arguments(spec)))
        if spec.recipe.optimizer.name != "adamw":
            words.append(f"  and with an optimizer of its own: {spec.recipe.optimizer.name} is no part of these files")
    return answer, "\n".join(words)


def draw(answer: Plan, html: Path) -> None:
    """Write the page of a plan."""
    from zerofit.report.page import write  # what draws takes half a second of import
    from zerofit.report.pages.plan import page

    html.parent.mkdir(parents=True, exist_ok=True)
    write(page(answer), html)


def chosen_stages(source: str, stages: Sequence[Recipe], number: int | None) -> list[Recipe]:
    """All of them, or that of `number`, from 1. Raises UserError where there is none."""
    if number is None:
        return list(stages)
    if not 1 <= number <= len(stages):
        raise UserError(f"--stage {number}: {source} has {len(stages)} stages, counted from 1")
    return [stages[number - 1]]


def staged_plan(recipe: Recipe, asked: Asked, nproc: int | None, *, follows: bool) -> Staged:
    """The plan of a recipe; `follows`: it is a stage after another. Raises UserError."""
    why = missing(recipe)
    facts = assumed_facts(recipe) if why is not None else described(recipe)
    machine, strategy = asked.machine(detect()), resolve_strategy(recipe)
    origin, weights = _origin(recipe)
    spec = make_plan(
        recipe,
        facts=facts,
        hardware=machine.hardware,
        ranks=machine.ranks(strategy, nproc, recipe.train),
        run_dir=next(rundir.candidates(str(recipe.name), recipe.run_dir)),
        origin=origin,
        chosen=strategy,
        here=machine.here,
    )
    if weights is None:
        weights = "those of the stage before" if follows and recipe.init_from is None else origin_of(spec)
    ranks = "--nproc" if nproc is not None else "the strategy's file" if strategy.ranks is not None else None
    ranks = ranks or ("one alone" if spec.strategy.name == "single" else "as many as divide the global batch")
    return chosen(Staged(spec, machine, ranks, None if why is None else said(recipe, facts, why), weights, spec), None)


def described(recipe: Recipe) -> ImageFacts | TextFacts:
    """What the recipe's data holds. Raises UserError."""
    from zerofit.tasks import TASKS  # torch, which what is assumed does without

    return TASKS[recipe.task].describe(recipe)


def _origin(recipe: Recipe) -> tuple[Path | None, str | None]:
    """Where weights are read from, and what is said of them; weights that are not there yet are no error."""
    if recipe.init_from is None:
        return None, None
    path, _ = split(Path(recipe.init_from).expanduser())
    if not path.exists():
        return None, f"{recipe.init_from}, which is not there yet"
    from zerofit.launch.origin import resolve

    return resolve(recipe.init_from), None


def chosen(one: Staged, timing: Timed | None) -> Staged:
    """With what its recipe leaves to the planner chosen, by formulas or with `timing` by steps played through."""
    made = choose(one.base, one.machine.host_gib, timing, here=one.machine.here, calibration=one.machine.calibration)
    return replace(one, spec=made)


def outlook(one: Staged, nproc: int | None, played: Played = "none", timing: Timed | None = None) -> StagePlan:
    """What each strategy would need."""
    spec, batches = one.spec, one.spec.batches
    found: list[Outlook] = []
    if spec.hardware.device == "cuda":
        every = alternatives(spec, one.machine, nproc)
        found = outlooks(every, one.machine.host_gib, played, one.machine.calibration, timing)
    return StagePlan(
        name=str(spec.recipe.name),
        task=spec.recipe.task,
        hardware=spec.hardware,
        host_gib=one.machine.host_gib,
        precision=spec.precision,
        ranks=batches.ranks,
        micro_batch=batches.micro,
        accumulation=batches.accumulation,
        global_batch=batches.global_batch,
        steps=batches.total_steps,
        assumed=one.assumed,
        strategies=tuple(found),
        choice=spec.choice,
    )


def _check_free(written: Sequence[tuple[Path, str]], html: Path | None, force: bool) -> None:
    """Raise UserError where a file is there that nobody said to write over."""
    for path in (*(path for path, _ in written), *([] if html is None else [html])):
        if path.exists() and not force:
            raise UserError(f"{path} exists: name another file, or give --force to write over it")


def _words(answer: Plan, staged: Sequence[Staged]) -> str:
    parts: list[str] = []
    for one, of in zip(answer.stages, staged, strict=True):
        parts += [one.name, planned.table(of.spec, of.weights, of.ranks_from), *choice(of.spec)]
        if one.strategies:
            parts += ["", table(one)]
        elif one.assumed is not None:
            parts.append(one.assumed)
        parts.append("")
    if all(one.hardware.device == "cpu" for one in answer.stages):
        parts.append("memory is predicted for GPUs: say which, for example --gpus 2 --gpu-memory 24GiB")
    return "\n".join(parts).rstrip()


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
