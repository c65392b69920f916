"""Commands before a run: plan."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from zerofit.cli.drafts import drafted
from zerofit.cli.root import Debug, Nproc, app, reported, split_words


@app.command()
def plan(
    words: Annotated[
        list[str],
        typer.Argument(metavar="RECIPE [a.b=c ...]", help="A recipe's name or file, and fields to change in it."),
    ],
    gpus: Annotated[int | None, typer.Option("--gpus", min=1, metavar="N", help="GPUs to plan for.")] = None,
    gpu: Annotated[
        str | None, typer.Option("--gpu", metavar="NAME", help="Which: h100, a100-40gb, rtx-2080-ti, ... as sold.")
    ] = None,
    gpu_memory: Annotated[
        str | None, typer.Option("--gpu-memory", metavar="SIZE", help="Memory of each: 11GiB, 11264MiB.")
    ] = None,
    host_memory: Annotated[
        str | None, typer.Option("--host-memory", metavar="SIZE", help="Memory of their host: 64GiB.")
    ] = None,
    search: Annotated[
        bool,
        typer.Option("--search", help="What do I need? A grid: --search RECIPE gpus=1..8 gpu-memory=11,24,48,80,141"),
    ] = False,
    quick: Annotated[bool, typer.Option("--quick", help="Predict memory by formulas alone: at once.")] = False,
    exact: Annotated[
        bool, typer.Option("--exact", help="Play a step of every strategy through, not of the recipe's alone: minutes.")
    ] = False,
    measure: Annotated[
        bool,
        typer.Option(
            "--measure", help="Take three steps at two small micro-batches on this machine's GPUs, and correct."
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON (docs/plan.md).")] = False,
    html: Annotated[Path | None, typer.Option("--html", metavar="FILE", help="Write a page with a picture.")] = None,
    nproc: Nproc = None,
    stage: Annotated[
        int | None, typer.Option("--stage", min=1, metavar="N", help="Of a recipe with stages, that one alone.")
    ] = None,
    write_accelerate: Annotated[
        Path | None,
        typer.Option(
            "--write-accelerate",
            metavar="FILE",
            help="Write the strategy for `accelerate launch --config_file FILE`; of ZeRO, DeepSpeed's JSON beside it.",
        ),
    ] = None,
    write_deepspeed: Annotated[
        Path | None,
        typer.Option("--write-deepspeed", metavar="FILE", help="Write DeepSpeed's JSON of a ZeRO strategy."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Write over files that exist.")] = False,
    debug: Debug = False,
) -> None:
    """Say what a recipe comes to, what each strategy would need, and start nothing; here, or on any other GPUs."""
    with reported(debug):
        from zerofit.config.errors import UserError
        from zerofit.launch.asked import Asked
        from zerofit.launch.planning import draw
        from zerofit.launch.planning import plan as start
        from zerofit.launch.predicting import Played

        recipe, overrides = split_words(words)
        if recipe is None:
            raise UserError("plan needs a recipe (`zerofit recipes` lists them)")
        if quick and exact:
            raise UserError("--quick and --exact: give one of them")
        alone = {"--gpus": gpus, "--gpu-memory": gpu_memory, "--nproc": nproc, "--html": html, "--exact": exact or None}
        alone |= {"--measure": measure or None}
        alone |= {"--write-accelerate": write_accelerate, "--write-deepspeed": write_deepspeed}
        for option, given in alone.items():
            if search and given is not None:
                raise UserError(
                    f"{option} is for one machine; --search takes gpus=1..8 and gpu-memory=11,24: leave it out"
                )
        asked = Asked(gpus, gpu, gpu_memory, host_memory)
        if measure:
            if quick:
                raise UserError("--measure corrects steps that are played through: leave --quick out")
            from zerofit.launch.measuring import check, measured
            from zerofit.launch.trials import Interrupted

            check(asked, recipe, overrides, stage)
        played: Played = "none" if quick else "all" if exact else "own"
        with drafted(hidden=as_json) as draft:
            if search:
                from zerofit.launch.searching import search as look

                grid, text = look(recipe, overrides, asked=asked, stage=stage, quick=quick, draft=draft)
                answer = grid.model_dump_json(indent=2)
            else:
                files = {"accelerate": write_accelerate, "deepspeed": write_deepspeed, "html": html}
                found, text = start(
                    recipe,
                    overrides,
                    nproc=nproc,
                    stage=stage,
                    asked=asked,
                    played=played,
                    force=force,
                    draft=draft,
                    **files,
                )
                answer = found.model_dump_json(indent=2)
        if measure:
            try:
                found, said = measured(found, recipe, overrides, nproc=nproc, stage=stage)
            except Interrupted as interrupted:
                raise typer.Exit(interrupted.args[0]) from None
            if html is not None:
                draw(found, html)
            answer, text = found.model_dump_json(indent=2), f"{text}\n\n{said}"
        typer.echo(answer if as_json else text)
