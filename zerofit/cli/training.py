"""Commands that run ranks: train, probe, compare."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from zerofit.cli.root import Debug, Nproc, app, reported, split_words


@app.command()
def train(
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="[RECIPE] [a.b=c ...]", help="A recipe's name or file, and fields to change in it."),
    ] = None,
    nproc: Nproc = None,
    resume: Annotated[
        Path | None,
        typer.Option(
            "--resume",
            metavar="RUN[@STEP]|DIR",
            help="Go on with this run or job from its newest checkpoint, or with a run from that of STEP "
            "(also RUN/checkpoints/step-000500). With a recipe: begin a run that goes on from DIR, a DeepSpeed "
            "checkpoint of another program.",
        ),
    ] = None,
    from_stage: Annotated[
        int | None,
        typer.Option(
            "--from-stage",
            min=1,
            metavar="N",
            help="Of a recipe with stages those from number N on (the first is 1), from the existing run of the one "
            "before. A field of one stage is changed as stages.0.a.b=c, where the first is 0, as in every list.",
        ),
    ] = None,
    stage: Annotated[
        int | None,
        typer.Option("--stage", min=1, metavar="N", help="That stage alone; under torchrun or srun one a launch."),
    ] = None,
    trust: Annotated[
        bool,
        typer.Option("--trust", help="Let pickles of init_from, or of --resume DIR, run the code that they ask for."),
    ] = False,
    auto_resume: Annotated[
        int,
        typer.Option(
            "--auto-resume",
            min=0,
            metavar="N",
            help="When a rank crashes go on from the newest checkpoint, N times at most, and not twice from one step.",
        ),
    ] = 0,
    grace: Annotated[
        float | None,
        typer.Option(
            "--grace",
            metavar="SECONDS",
            help="A run that gets SIGTERM, SIGUSR1 or Ctrl-C saves and stops within this; default: 60.",
        ),
    ] = None,
    watchdog: Annotated[
        float | None,
        typer.Option(
            "--watchdog", metavar="MINUTES", help="End a run that hangs for so long; default 30, 0 for never."
        ),
    ] = None,
    debug: Debug = False,
) -> None:
    """Train what a recipe says."""
    with reported(debug):
        from zerofit.config.errors import UserError
        from zerofit.config.patience import GRACE, WATCHDOG
        from zerofit.launch.start import train as start

        recipe, overrides = split_words(words or [])
        if recipe is None and resume is None:
            raise UserError("train needs a recipe (`zerofit recipes` lists them) or --resume RUN")
        for name, value in ((GRACE, grace), (WATCHDOG, watchdog)):
            if value is not None:
                os.environ[name] = str(value)
        asked = {"nproc": nproc, "from_stage": from_stage, "stage": stage}
        code = start(recipe, overrides, resume=resume, trust=trust, auto_resume=auto_resume, debug=debug, **asked)
        raise typer.Exit(code)


@app.command()
def probe(
    words: Annotated[
        list[str],
        typer.Argument(metavar="RECIPE [a.b=c ...]", help="A recipe of task probe, and fields to change in it."),
    ],
    gap: Annotated[
        bool, typer.Option("--gap", help="Run it on cached features and online, and state the difference.")
    ] = False,
    nproc: Nproc = None,
    debug: Debug = False,
) -> None:
    """Probe a frozen backbone with a linear head."""
    with reported(debug):
        from zerofit.config.errors import UserError
        from zerofit.launch.gap import probe as start

        recipe, overrides = split_words(words)
        if recipe is None:
            raise UserError("probe needs a recipe (`zerofit recipes` lists them)")
        raise typer.Exit(start(recipe, overrides, gap=gap, nproc=nproc, debug=debug))


@app.command()
def compare(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="RECIPE [a.b=c ...] | RUN RUN ...",
            help="A recipe, and fields to change in it; or runs that are there, which are read and not repeated.",
        ),
    ],
    strategies: Annotated[
        str | None,
        typer.Option(
            "--strategies", metavar="S,S,...", help="Default: ddp,zero2,zero3,fsdp2. The first is the baseline."
        ),
    ] = None,
    gpus: Annotated[
        str | None,
        typer.Option("--gpus", metavar="N,N,...", help="Ranks; each strategy runs on each. Default: as in train."),
    ] = None,
    steps: Annotated[
        int | None, typer.Option("--steps", metavar="N", help="Optimizer steps of each run; default: 30.")
    ] = None,
    max_batch: Annotated[
        bool,
        typer.Option("--max-batch", help="Find the largest micro-batch that fits, too, with short runs. GPUs only."),
    ] = False,
    no_profile: Annotated[
        bool, typer.Option("--no-profile", help="Trace nothing: no figure of exposed communication.")
    ] = False,
    stage: Annotated[
        int | None, typer.Option("--stage", min=1, metavar="N", help="Of a recipe with stages, the one to compare.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", metavar="DIR", help="New; default: runs/compare-NAME.")
    ] = None,
    debug: Debug = False,
) -> None:
    """Run the same work under each strategy and compare memory, speed and losses; or compare runs that are there."""
    with reported(debug):
        from zerofit.prove.compare import compare as start

        asked: dict[str, Any] = {"strategies": strategies, "gpus": gpus, "steps": steps, "max_batch": max_batch}
        code, _ = start(words, profile=not no_profile, stage=stage, output=output, **asked)
        raise typer.Exit(code)
