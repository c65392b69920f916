"""Commands for the machine itself: doctor."""

from __future__ import annotations

from typing import Annotated

import typer

from zerofit.cli.root import Debug, app, reported, split_words


@app.command()
def doctor(
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="[RECIPE] [a.b=c ...]", help="With --calibrate: measure this recipe's layers, too."),
    ] = None,
    calibrate: Annotated[
        bool,
        typer.Option("--calibrate", help="Measure rates of this machine's devices, for `zerofit plan`: 2 minutes."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON (docs/plan.md).")] = False,
    debug: Debug = False,
) -> None:
    """Say what of this machine would be in the way of a run; exit code 2 where every run would fail."""
    with reported(debug):
        from zerofit.config.errors import UserError
        from zerofit.report.diagnosis import columns, text

        recipe, overrides = split_words(words or [])
        if words and not calibrate:
            raise UserError(f"doctor looks at the machine alone: leave {words[0]} out, or give --calibrate")
        if calibrate:
            from zerofit.launch.calibrating import calibrate as measure
            from zerofit.launch.rates_table import rows
            from zerofit.plan.hardware import detect

            found, path = measure(recipe, overrides, quietly=as_json)
            if as_json:
                typer.echo(found.model_dump_json(indent=2))
                return
            typer.echo(columns(rows(found, detect())))
            typer.echo(f"written: {path}")
            if found.device == "cpu":
                typer.echo("the planner predicts for GPUs alone: nothing is taken of a CPU's rates")
            return
        from zerofit.launch.doctor import diagnose

        diagnosis = diagnose()
        typer.echo(diagnosis.model_dump_json(indent=2) if as_json else text(diagnosis))
        if diagnosis.worst == "error":
            raise typer.Exit(2)
