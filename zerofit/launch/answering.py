"""`zerofit eval` of a language model: what is to be answered is settled and written down before ranks start.

Results go to RUN/evaluations/N, a model's to ./evaluations/NAME-N. The same command goes on where it was cut off.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from zerofit.config.errors import UserError
from zerofit.evaluate.asked import Asked
from zerofit.evaluate.request import Model, Request, Settings, read_request
from zerofit.launch import pages, places, rundir, workarounds
from zerofit.launch.dispatch import Launch, check_ranks, default_ranks, dispatch
from zerofit.launch.settling import begun, dtype_on, model_of_run, size_of_parts
from zerofit.plan.spec import Hardware, RunSpec
from zerofit.report import evaluated


def evaluate(
    target: str,
    data: Sequence[str],
    options: Mapping[str, Any],
    *,
    spec: RunSpec | None = None,
    nproc: int | None = None,
    step: int | None = None,
    debug: bool = False,
) -> int:
    """Evaluate a run (its `spec`, at `step` or the newest checkpoint) or a model's directory. Returns the exit code.

    Raises UserError, before ranks start for whatever can be known by then.
    """
    asked = Asked(target=target, data=tuple(data), **options)
    asked.check()

    def plan(hardware: Hardware, ranks: int | None) -> Launch:
        return _plan(asked, spec, step, hardware, ranks)

    def show(launch: Launch) -> None:
        page = pages.make(launch.run_dir)
        other = replace(asked, target="OTHER", against=Path(os.path.relpath(launch.run_dir)), output=None)
        print(evaluated.table(launch.run_dir, page, other.command()))

    return dispatch(plan, nproc=nproc, debug=debug, show=show)


def _plan(asked: Asked, spec: RunSpec | None, step: int | None, hardware: Hardware, ranks: int | None) -> Launch:
    workarounds.quiet()  # before what it quiets is imported
    from zerofit.evaluate import problems as asking
    from zerofit.evaluate import prompts as prompting
    from zerofit.evaluate.merging import check_against
    from zerofit.evaluate.parts import Parts, write_prompts
    from zerofit.measure.rollouts import ROLLOUTS

    check_ranks(hardware, ranks)
    if spec is not None and asked.quantize not in (None, spec.recipe.quantize):
        raise UserError(
            f"--quantize {asked.quantize}: {asked.target} was not trained so; a run is what it was in training"
        )
    model = _model(asked, spec, step)
    system = asked.system if asked.system is not None or spec is None else spec.recipe.text.system
    if asked.data:
        problems = asking.read_problems(asked.data, asked.fields, system, asked.limit)
        data = ", ".join(asked.data)
    elif spec is None:
        raise UserError("--data: name problems with answers: a file, a directory, or hf:ID")
    else:
        problems, data = asking.own_problems(spec, system, asked.limit)
    about = asking.digest(problems)
    against = None if asked.against is None else asked.against.expanduser().absolute()
    if against is not None:
        check_against(against, about)
    asking.check_answers(problems)
    tokenizer = prompting.tokenizer_for(model)
    prompts = prompting.make_prompts(problems, tokenizer)
    stops = prompting.stops_of(model, tokenizer)
    length = prompting.tokens_of_a_completion(prompts, prompting.context_of(model), asked.max_tokens)
    settings = Settings(
        model=model,
        problems=about,
        prompts=prompting.digest(prompts),
        k=asked.k,
        samples=asked.per_problem,
        sampling=asked.sampling(length),
        seed=asked.seed,
        engine=asked.engine,
        dtype=dtype_on(hardware, asked.dtype),
        quantize=asked.quantize if spec is None else spec.recipe.quantize,
        pad=stops[0] if tokenizer.pad_token_id is None else int(tokenizer.pad_token_id),
        stops=stops,
    )
    candidates = places.of_model(asked.target) if spec is None else places.of_run(spec.run_dir)
    directory, per_part = places.find_place(asked.output, candidates, settings, read_request)
    lock = rundir.claim(directory)
    per_part = per_part or size_of_parts(hardware, settings.samples, len(problems))
    parts = Parts(ROLLOUTS, directory, len(problems), per_part, settings.digest())
    request = Request(
        settings=settings,
        data=data,
        count=len(problems),
        per_part=per_part,
        batch=asked.batch,
        against=against,
        hardware=hardware,
        ranks=ranks or min(default_ranks("ddp", hardware), len(parts.problems)),
    )
    write_prompts(directory, prompts)
    again = asked.command() + ("" if step is None or "@" in asked.target else f" --checkpoint {step}")
    headline = _headline(request, directory, len(parts.done()), len(parts.problems))
    return begun(request, directory, "--answer", headline=headline, lock=lock, again=again)


def _model(asked: Asked, spec: RunSpec | None, step: int | None) -> Model:
    """What is asked for, found. Raises UserError."""
    if spec is not None:
        return model_of_run(spec, step, asked.template)
    from zerofit.evaluate.loading import find_model

    directory = find_model(asked.target)
    state = sha256()
    for path in sorted(one for one in directory.iterdir() if one.suffix in (".json", ".safetensors", ".jinja")):
        found = path.stat()
        state.update(f"{path.name} {found.st_size} {found.st_mtime_ns}\n".encode())
    return Model(name=asked.target, run=None, weights=directory, fingerprint=state.hexdigest(), template=asked.template)


def _headline(request: Request, directory: Path, done: int, parts: int) -> str:
    settings = request.settings
    each = "" if settings.samples == 1 else f" x {settings.samples}"
    on = f"{request.ranks} ranks on {request.hardware.name}, {settings.dtype}"
    gone_on = f"; goes on: {done} of {parts} parts are done" if done else ""
    return f"{os.path.relpath(directory)}: {settings.model.name}, {request.count} problems{each}, {on}{gone_on}"
