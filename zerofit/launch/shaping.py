"""`zerofit eval` of a run on CAD models: what is to be made of them is settled and written down before ranks start.

Results go to RUN/evaluations/N. The same command goes on where it was cut off.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from zerofit.config.cad import UNTOLD, Inputs
from zerofit.config.schema import Recipe
from zerofit.data.splits import SplitName
from zerofit.evaluate.shape_asked import AskedShapes, check_seen, ordered
from zerofit.evaluate.shape_request import MODELS, MODELS_FILE, ShapeRequest, ShapeSettings, digest, read_request
from zerofit.launch import pages, places, rundir, workarounds
from zerofit.launch.dispatch import Launch, check_ranks, default_ranks, dispatch
from zerofit.launch.evaluation import with_data
from zerofit.launch.settling import begun, dtype_on, model_of_run, size_of_parts
from zerofit.plan.spec import CadFacts, Hardware, RunSpec
from zerofit.report import shaped


def evaluate(
    target: str,
    data: Sequence[str],
    options: Mapping[str, Any],
    *,
    spec: RunSpec,
    nproc: int | None = None,
    step: int | None = None,
    debug: bool = False,
) -> int:
    """Evaluate a run's checkpoint of `step`, or the newest. Returns the exit code.

    Raises UserError, before ranks start for whatever can be known by then.
    """
    asked = AskedShapes(target=target, data=tuple(data), **options)
    asked.check()

    def plan(hardware: Hardware, ranks: int | None) -> Launch:
        return _plan(asked, spec, step, hardware, ranks)

    def show(launch: Launch) -> None:
        page = pages.make(launch.run_dir)
        print(shaped.table(launch.run_dir, page, os.path.relpath(spec.run_dir)))

    return dispatch(plan, nproc=nproc, debug=debug, show=show)


def _plan(asked: AskedShapes, spec: RunSpec, step: int | None, hardware: Hardware, ranks: int | None) -> Launch:
    workarounds.quiet()  # before what it quiets is imported
    from zerofit.evaluate.parts import Parts
    from zerofit.evaluate.prompts import context_of
    from zerofit.evaluate.shape_prompts import Prompts, tokens_of_a_text
    from zerofit.measure.shapes import SHAPES
    from zerofit.tasks import TASKS

    check_ranks(hardware, ranks)
    model = model_of_run(spec, step)
    recipe, mixes = _recipe(asked, spec)
    facts = TASKS["cad"].describe(recipe)
    assert isinstance(facts, CadFacts)
    spec = spec.model_copy(update={"recipe": recipe, "data": facts})
    split: SplitName = "test" if facts.test else "validation"
    prompts = Prompts(spec, split)
    models = list(prompts.asked(asked.limit))
    length = tokens_of_a_text(asked.max_tokens, facts.longest, prompts.longest(mixes), context_of(model))
    settings = ShapeSettings(
        model=model,
        models=digest(models),
        shown=tuple(place.name for place in (facts.samples, facts.clouds_in, facts.views_in) if place is not None),
        mixes=mixes,
        sampling=asked.sampling(length),
        seed=asked.seed,
        constrained=asked.constrained,
        pictures=asked.pictures,
        dtype=dtype_on(hardware, asked.dtype),
    )
    directory, per_part = places.find_place(asked.output, places.of_run(spec.run_dir), settings, read_request)
    lock = rundir.claim(directory)
    per_part = per_part or size_of_parts(hardware, len(mixes), len(models))
    parts = Parts(SHAPES, directory, len(models), per_part, settings.digest())
    request = ShapeRequest(
        settings=settings,
        data=f"{recipe.cad.path or recipe.cad.source}, {split} split",
        count=len(models),
        per_part=per_part,
        batch=asked.batch,
        hardware=hardware,
        ranks=ranks or min(default_ranks("ddp", hardware), len(parts.problems)),
        cad=recipe.cad,
        facts=facts,
        split=split,
    )
    MODELS.write(directory / MODELS_FILE, models)
    again = asked.command() + ("" if step is None or "@" in asked.target else f" --checkpoint {step}")
    headline = _headline(request, directory, len(parts.done()), len(parts.problems))
    return begun(request, directory, "--shapes", headline=headline, lock=lock, again=again)


def _recipe(asked: AskedShapes, spec: RunSpec) -> tuple[Recipe, tuple[str, ...]]:
    """The run's recipe, on data whose mix has what is told, and all mixes, the untold one last. Raises UserError."""
    recipe = with_data(spec.recipe, asked.data) if asked.data else spec.recipe
    trained = tuple(share.inputs.name for share in recipe.cad.shares)
    mixes = ordered([*(asked.mix or trained), UNTOLD])
    for mix in mixes:
        check_seen(Inputs.named(mix), recipe.cad_model, f"--mix {mix}")
    told = [mix for mix in mixes if mix != UNTOLD]
    if not told or set(told) == set(trained) - {UNTOLD}:
        return recipe, mixes
    cad = recipe.cad.model_copy(update={"mix": dict.fromkeys(told, 1.0)})
    return recipe.model_copy(update={"data": cad}), mixes


def _headline(request: ShapeRequest, directory: Path, done: int, parts: int) -> str:
    settings = request.settings
    on = f"{request.ranks} ranks on {request.hardware.name}, {settings.dtype}"
    gone_on = f"; goes on: {done} of {parts} parts are done" if done else ""
    told = ", ".join(settings.mixes)
    return f"{os.path.relpath(directory)}: {settings.model.name}, {request.count} CAD models by {told}, {on}{gone_on}"
