"""Trials of a recipe: a few real optimizer steps at a small micro-batch, in a directory that is gone afterwards."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from zerofit.config.errors import UserError
from zerofit.config.model import LanguageSection
from zerofit.config.optimizer import Warmup
from zerofit.config.schema import Recipe
from zerofit.launch.dispatch import conduct
from zerofit.launch.failure import INTERRUPTED
from zerofit.launch.few_steps import for_steps
from zerofit.launch.shortfall import ran_out
from zerofit.launch.start import begin
from zerofit.plan.auto import settled
from zerofit.plan.build import make_plan
from zerofit.plan.prediction import Unpredicted
from zerofit.plan.shaped import shaped
from zerofit.plan.spec import Hardware, RunSpec

STEPS = 3
"""Of a trial: the first makes what stays, the second is the first that has all of it, the third is timed."""
TRIALS = 2
LARGEST = 64
"""Micro-batch up to which two that divide are looked for."""
ACCUMULATIONS = (1, 2, 4, 8, 16)
"""Tried in this order: fewer are quicker."""


class Interrupted(Exception):
    """A signal has ended a trial; its argument is the exit code that it stands for."""


@dataclass(frozen=True)
class Figures:
    """What a trial took. Peaks are those of the fullest rank, in GiB."""

    peak_gib: float | None = None
    """Allocated; on a CPU resident. Null: memory ran out."""
    reserved_gib: float | None = None
    """Held by the allocator; null on a CPU."""
    step_s: float | None = None
    """Seconds of the last step."""
    why: str | None = None
    """How memory ran out."""


def trials_of(spec: RunSpec) -> list[RunSpec]:
    """The plans of trials of a run, by rising micro-batch: of the two smallest that divide, as few micro-batches a step
    as that allows.

    They begin with fresh weights of the run's shape, as it is predicted. Raises UserError where the shape is not at
    hand, or nothing divides.
    """
    try:
        known = shaped(spec)
    except Unpredicted as why:
        raise UserError(f"--measure: {why}") from None
    base = _bare(settled(known), spec)
    found: list[RunSpec] = []
    for micro in range(1, LARGEST + 1):
        planned = next(_planned(base, spec, micro), None)
        if planned is not None:
            found.append(planned)
        if len(found) == TRIALS:
            return found
    if not found:
        raise UserError(f"--measure: no micro-batch up to {LARGEST} makes a step of this recipe; change train.*")
    return found


def _bare(recipe: Recipe, spec: RunSpec) -> Recipe:
    """`recipe` for STEPS steps and nothing besides."""
    model, said = recipe.model, spec.recipe.model
    if isinstance(model, LanguageSection) and isinstance(said, LanguageSection):
        model = model.model_copy(update={"tokenizer": said.tokenizer or said.pretrained})  # its tokens are real
    made = recipe.model_copy(
        update={
            "train": recipe.train.model_copy(update={"on_oom": "fail"}),
            "evaluate": recipe.evaluate.model_copy(update={"micro_batch": spec.batches.evaluate_micro}),
        }
    )
    optimizer = recipe.optimizer.model_copy(update={"warmup": Warmup(steps=0)})
    return for_steps(made, STEPS, model=model, init_from=None, optimizer=optimizer)


def _planned(base: Recipe, spec: RunSpec, micro: int) -> Iterator[RunSpec]:
    for accumulation in ACCUMULATIONS:
        sizes = {"micro_batch": micro, "global_batch": micro * spec.batches.ranks * accumulation}
        recipe = base.model_copy(update={"train": base.train.model_copy(update=sizes)})
        try:
            yield make_plan(
                recipe,
                facts=spec.data,
                hardware=spec.hardware,
                ranks=spec.batches.ranks,
                run_dir=spec.run_dir,
                like=spec,
            )
        except UserError:
            continue


def run(trials: Sequence[RunSpec], hardware: Hardware) -> list[Figures]:
    """Take them one after another; the first whose memory runs out is the last. What is printed goes past stdout.

    Nothing is left behind. Raises UserError for what else goes wrong, and Interrupted.
    """
    found: list[Figures] = []
    with TemporaryDirectory(prefix="zerofit-measure-") as name, redirect_stdout(sys.stderr):
        for spec in trials:
            print(f"measuring {STEPS} steps with a micro-batch of {spec.batches.micro}", flush=True)
            found.append(_take(spec, hardware, Path(name, f"micro-{spec.batches.micro}")))
            if found[-1].why is not None:
                break
    return found


def _take(spec: RunSpec, hardware: Hardware, directory: Path) -> Figures:
    launch = begin(spec.recipe.model_copy(update={"run_dir": directory}), hardware, spec.batches.ranks)
    outcome = conduct(launch, hardware)
    if outcome.interrupted or outcome.late is not None or outcome.signal is not None:
        raise Interrupted(outcome.code or INTERRUPTED)
    failure = outcome.failure
    if failure is not None:
        short = ran_out(failure.message)
        if short is not None:
            return Figures(why=short.words())
        if not failure.user:
            print(failure.traceback, file=sys.stderr)
        raise UserError(f"--measure: rank {failure.rank} failed: {failure.message.splitlines()[0]}")
    result = json.loads((directory / "result.json").read_text(encoding="utf-8"))
    lines = [json.loads(line) for line in (directory / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    rate = next((line["samples_s"] for line in reversed(lines) if "samples_s" in line), None)
    return Figures(
        peak_gib=result["peak_alloc_gib"],
        reserved_gib=result.get("peak_reserved_gib"),
        step_s=spec.batches.global_batch / rate if rate else None,
    )
