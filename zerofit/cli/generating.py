"""The command generate: one CAD model, from what is told of it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from zerofit.cli.root import Debug, app, reported


@app.command()
def generate(
    run: Annotated[
        Path,
        typer.Argument(metavar="RUN", help="A run of the task cad (RUN@STEP: that checkpoint).", show_default=False),
    ],
    out: Annotated[
        Path, typer.Option("--out", metavar="FILE", help="A new .step, .stl, .png, or .txt (the commands).")
    ],
    text: Annotated[str | None, typer.Option("--text", metavar="TEXT", help="What it is to be.")] = None,
    points: Annotated[
        Path | None,
        typer.Option(
            "--points", metavar="FILE", help=".npy, .npz or .xyz: x, y, z, and normals, in the frame of training's."
        ),
    ] = None,
    image: Annotated[
        list[Path] | None,
        typer.Option("--image", metavar="FILE", help="A picture; repeatable: all are seen, in order of the sides."),
    ] = None,
    fit: Annotated[
        bool, typer.Option("--fit", help="Scale the points about the origin to the size of a part.")
    ] = False,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Decides what is drawn.")] = 0,
    temperature: Annotated[
        float | None, typer.Option("--temperature", min=0, help="Default: the likeliest text first, then 0.7.")
    ] = None,
    tries: Annotated[
        int, typer.Option("--tries", min=1, metavar="N", help="Texts, until one makes a valid solid.")
    ] = 4,
    free: Annotated[bool, typer.Option("--free", help="Do not hold texts to the grammar.")] = False,
    max_tokens: Annotated[
        int | None, typer.Option("--max-tokens", min=1, metavar="N", help="Default: as the longest training sample.")
    ] = None,
    checkpoint: Annotated[int | None, typer.Option("--checkpoint", metavar="STEP", help="Default: the newest.")] = None,
    debug: Debug = False,
) -> None:
    """Make a CAD model of a text, a point cloud, an image, or several of these."""
    with reported(debug):
        from zerofit.launch.generating import Wanted
        from zerofit.launch.generating import generate as start

        wanted = Wanted(
            run=run,
            out=out,
            caption=text,
            points=points,
            images=tuple(image or ()),
            fit=fit,
            seed=seed,
            temperature=temperature,
            tries=tries,
            constrained=not free,
            max_tokens=max_tokens,
            step=checkpoint,
        )
        raise typer.Exit(start(wanted))
