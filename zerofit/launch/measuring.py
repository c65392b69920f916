"""`zerofit plan --measure`: real steps at small micro-batches, and what they change of what was predicted."""

from __future__ import annotations

import os
from collections.abc import Sequence

from zerofit.config.errors import UserError
from zerofit.config.load import load_job
from zerofit.config.schema import Recipe
from zerofit.launch.alternatives import short_of
from zerofit.launch.asked import HERE, Asked, Machine
from zerofit.launch.environment import outer_world
from zerofit.launch.planning import Staged, chosen, chosen_stages, staged_plan
from zerofit.launch.predicting import Timed
from zerofit.launch.trials import STEPS, Figures, run, trials_of
from zerofit.plan.answer import Plan, StagePlan
from zerofit.plan.assumed import missing
from zerofit.plan.fitting import fit, overall
from zerofit.plan.hardware import detect
from zerofit.plan.measured import Correction, Measured, Trial, correction
from zerofit.plan.prediction import Unpredicted, Verdict
from zerofit.plan.spec import RunSpec
from zerofit.report.measured import table

WEIGHTS = "fresh ones of the model's shape"


def check(asked: Asked, source: str, overrides: Sequence[str] = (), stage: int | None = None) -> None:
    """Raise UserError where no steps of a recipe can be taken: for another machine, without a GPU, without its data."""
    if asked != HERE:
        raise UserError(
            "--measure takes steps on this machine's GPUs: leave --gpus, --gpu, --gpu-memory and --host-memory out"
        )
    if outer_world(os.environ) is not None:
        raise UserError("--measure starts ranks of its own: run it without an outer launcher")
    if detect().device != "cuda":
        raise UserError("--measure: memory is predicted for GPUs, and this machine has none: leave --measure out")
    for recipe in chosen_stages(source, load_job(source, overrides).stages, stage):
        _check_steps(recipe)


def measured(
    answer: Plan,
    source: str,
    overrides: Sequence[str] = (),
    *,
    nproc: int | None = None,
    stage: int | None = None,
) -> tuple[Plan, str]:
    """`answer`, the plan of the same recipe on this machine, with what was measured of its stages; that in words.

    After `check`. Raises UserError as training does, and Interrupted.
    """
    job = load_job(source, overrides)
    recipes = chosen_stages(source, job.stages, stage)
    plans = [staged_plan(one, HERE, nproc, follows=one is not job.stages[0]) for one in recipes]
    staged = [chosen(one, Timed(one.machine.calibration)) for one in plans]
    planned = [trials_of(one.spec) for one in staged]
    taken: list[StagePlan] = []
    words: list[str] = []
    for one, trials, stage_plan in zip(staged, planned, answer.stages, strict=True):
        figures = run(trials, detect())
        found = conclude(one, stage_plan, beside(trials, figures, one.machine))
        taken.append(stage_plan.model_copy(update={"measured": found}))
        words.append(table(stage_plan.name, found))
    return answer.model_copy(update={"stages": tuple(taken)}), "\n\n".join(words)


def _check_steps(recipe: Recipe) -> None:
    """Raise UserError where no step of the recipe can be taken."""
    why, name = missing(recipe), recipe.name
    if why is not None:
        raise UserError(f"--measure takes real steps of {name}, and its {why}: get it, or leave --measure out")
    if recipe.probe is not None and recipe.probe.features == "cached":
        raise UserError(
            f"--measure: {name} is a probe on cached features, whose heads take no such steps: use "
            "probe.features=online, or name another stage with --stage N"
        )


def beside(trials: Sequence[RunSpec], figures: Sequence[Figures], machine: Machine) -> list[Trial]:
    """What was taken of each, beside what is predicted of exactly that; on a CPU nothing is."""
    timed = Timed(machine.calibration) if machine.hardware.device == "cuda" else None
    found = []
    for spec, took in zip(trials, figures, strict=False):
        peak = None
        if timed is not None:
            try:
                peak = timed.closest(spec).peak_gib
            except Unpredicted:
                peak = None
        speed = None if timed is None else timed.speed(spec)
        found.append(
            Trial(
                micro_batch=spec.batches.micro,
                accumulation=spec.batches.accumulation,
                fits=took.why is None,
                predicted_gib=peak,
                peak_gib=took.peak_gib,
                reserved_gib=took.reserved_gib,
                predicted_s=None if speed is None else speed.step_s,
                step_s=None if took.step_s is None else round(took.step_s, 6),
                why=took.why,
            )
        )
    return found


def conclude(one: Staged, planned: StagePlan, trials: Sequence[Trial]) -> Measured:
    """What trials of a stage come to for the recipe's own strategy and micro-batch, as they were `planned`."""
    spec, machine, found = one.spec, one.machine, correction(trials)
    own = next((outlook.prediction for outlook in planned.strategies if outlook.own), None)
    short = [trial for trial in trials if not trial.fits]
    held = [trial for trial in trials if trial.fits]
    peak, fits, speed = None, None, None
    if own is not None and held:
        micro = spec.batches.micro
        peak = round(found.peak_gib(own.peak_gib, micro), 4)
        memory = own.memory.model_copy(update={"peak_gib": peak})
        fits = fit(memory, spec, machine.host_gib, machine.calibration, found.slack)
        speed = None if own.speed is None else found.speed(own.speed)
    verdict: Verdict | None = None if fits is None else overall(fits)
    if any(trial.micro_batch <= spec.batches.micro for trial in short):
        verdict = "does not fit"
    return Measured(
        strategy=short_of(spec.strategy),
        ranks=spec.batches.ranks,
        micro_batch=spec.batches.micro,
        weights=WEIGHTS,
        steps=STEPS,
        trials=tuple(trials),
        correction=_rounded(found),
        predicted_gib=None if own is None else own.peak_gib,
        peak_gib=peak,
        fit=fits,
        speed=speed,
        verdict=verdict,
    )


def _rounded(found: Correction) -> Correction:
    def short(number: float | None) -> float | None:
        return None if number is None else round(number, 6)

    return found.model_copy(update={name: short(value) for name, value in dict(found).items() if name != "floor"})
