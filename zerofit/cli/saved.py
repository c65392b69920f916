"""Commands for checkpoints: export, convert, checkpoint list, verify and show."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from zerofit.cli.root import Debug, app, checkpoints, reported


@app.command()
def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run directory.")],
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="A new directory.")],
    checkpoint: Annotated[int | None, typer.Option("--checkpoint", metavar="STEP", help="Default: the newest.")] = None,
    debug: Debug = False,
) -> None:
    """Write a run's whole weights, adapters merged in, to DIR, which `init_from: DIR` reads."""
    with reported(debug):
        from zerofit.launch.export import export as start

        start(run, directory, step=checkpoint)


@app.command()
def convert(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="SOURCE", help="RUN, RUN@STEP, or another checkpoint: DeepSpeed's, safetensors, .pth, canonical."
        ),
    ],
    to: Annotated[
        str | None,
        typer.Option(
            "--to",
            metavar="FORM",
            help="pytorch: one file with `model` and `optimizer`; safetensors: the canonical form, with --weights-only "
            "weights alone; hf: what transformers loads; peft: adapters alone; or a strategy: single, ddp, fsdp2, "
            "zero1, zero2, zero3.",
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", metavar="PATH", help="New; default: named after SOURCE, here.")
    ] = None,
    weights_only: Annotated[bool, typer.Option("--weights-only", help="Without the optimizer.")] = False,
    dtype: Annotated[
        str | None, typer.Option("--dtype", metavar="bf16|fp16|fp32", help="Of parameters; default: fp32.")
    ] = None,
    merge_lora: Annotated[
        bool, typer.Option("--merge-lora", help="Write the weights of the model without adapters, these merged in.")
    ] = False,
    world: Annotated[
        int | None, typer.Option("--world", min=1, metavar="N", help="Ranks, where FORM is a strategy.")
    ] = None,
    inspect: Annotated[
        bool,
        typer.Option("--inspect", help="Say what SOURCE is and which files it lacks; exit code 2 where it lacks any."),
    ] = False,
    trust: Annotated[bool, typer.Option("--trust", help="Let a pickle run the code that it asks for.")] = False,
    debug: Debug = False,
) -> None:
    """Write a checkpoint in another form, or say what a directory is."""
    with reported(debug):
        from zerofit.launch.convert import convert as start

        asked: dict[str, Any] = {"weights_only": weights_only, "dtype": dtype, "merge_lora": merge_lora, "world": world}
        raise typer.Exit(start(source, to=to, output=output, inspect=inspect, trust=trust, debug=debug, **asked))


OneOrAll = Annotated[
    Path, typer.Argument(metavar="RUN|RUN@STEP|DIR", help="A run, one of its checkpoints, or a checkpoint's directory.")
]


@checkpoints.command("list")
def list_checkpoints(run: Annotated[Path, typer.Argument(metavar="RUN", help="A run directory.")]) -> None:
    """List a run's checkpoints."""
    with reported(debug=False):
        from zerofit.launch.checkpoints import listing

        typer.echo(listing(run))


@checkpoints.command("verify")
def verify_checkpoints(asked: OneOrAll) -> None:
    """Read all of a run's checkpoints, or one, and name what is damaged; exit code 2 where anything is."""
    with reported(debug=False):
        from zerofit.launch.checkpoints import check

        raise typer.Exit(check(asked))


@checkpoints.command("show")
def show_checkpoint(asked: OneOrAll) -> None:
    """Show one checkpoint, of a run the newest: what it is of, and what its files hold."""
    with reported(debug=False):
        from zerofit.launch.checkpoints import show

        typer.echo(show(asked))
