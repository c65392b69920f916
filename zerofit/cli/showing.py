"""Commands that show what came of runs: watch, report, trace."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from zerofit.cli.root import Debug, app, reported


@app.command()
def watch(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run directory, or a job's.")],
    terminal: Annotated[
        bool, typer.Option("--terminal", help="A table in the terminal, also of a run that trackio tracks.")
    ] = False,
    once: Annotated[bool, typer.Option("--once", help="Print how it is doing, and leave.")] = False,
) -> None:
    """Watch a run train: in trackio's dashboard where it is tracked so, else in the terminal; Ctrl-C leaves."""
    with reported(debug=False):
        from zerofit.launch.watch import watch as start

        raise typer.Exit(start(run, terminal=terminal, once=once))


@app.command()
def report(
    source: Annotated[
        Path, typer.Argument(metavar="RUN|DIR", help="A run, a job, a comparison, or the trace.json of a profile.")
    ],
    output: Annotated[
        Path | None, typer.Option("--output", metavar="FILE", help="Default: report.html in the directory.")
    ] = None,
    show: Annotated[bool, typer.Option("--open", help="Open it in the browser.")] = False,
    debug: Debug = False,
) -> None:
    """Write the page of a run, also of one that crashed or is still going on: one HTML file that loads nothing."""
    with reported(debug):
        from zerofit.report.page import write_page

        path = write_page(source, output)
        typer.echo(path)
        if show:
            import webbrowser

            webbrowser.open(path.absolute().as_uri())


@app.command()
def trace(
    sources: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN|DIR|ARCHIVE [ANOTHER]",
            help="A run with `profile:`, a directory or archive (.zip, .tar, .tar.gz) of PyTorch traces of all ranks; "
            "two of them are compared.",
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option("--output", metavar="FILE", help="JSON of it; default: RUN/profile/trace.json, of others none."),
    ] = None,
    merge: Annotated[
        Path | None,
        typer.Option("--merge", metavar="FILE.json.gz", help="One trace of all ranks, for Perfetto."),
    ] = None,
    fail_if: Annotated[
        list[str] | None,
        typer.Option(
            "--fail-if",
            metavar="'idle>20%'",
            help="Exit code 3 where any rank's figure is beyond: idle, compute, communication, exposed communication, "
            "overlap; < or >; repeatable.",
        ),
    ] = None,
    debug: Debug = False,
) -> None:
    """Say where the time of traced steps goes: computing, communicating, waiting; and who waits for whom."""
    with reported(debug):
        from zerofit.report.trace.command import trace as start

        raise typer.Exit(start(sources, output=output, merge=merge, fail_if=fail_if or []))
