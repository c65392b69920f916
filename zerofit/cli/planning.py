"""Commands before a run: plan."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from zerofit.cli.root import Debug, Nproc, app, reported, split_words


@app.command()
def plan(
    words: Annotated[
        list[str],
        typer.Argument(metavar="RECIPE [a.b=c ...]", help="A recipe's name or file, and fields to change in it."),
    ],
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
    """Say what a recipe comes to, and start nothing; or write its strategy for other programs."""
    with reported(debug):
        from zerofit.config.errors import UserError
        from zerofit.launch.planning import plan as start

        recipe, overrides = split_words(words)
        if recipe is None:
            raise UserError("plan needs a recipe (`zerofit recipes` lists them)")
        files = {"accelerate": write_accelerate, "deepspeed": write_deepspeed}
        typer.echo(start(recipe, overrides, nproc=nproc, stage=stage, force=force, **files))
