"""The commands. Each is a few lines that call one function below, imported only then: `zerofit --help` is instant.

Exit codes: 0 done, 1 a rank crashed, 2 the user's error, 3 a gate of `zerofit trace` failed, 4 interrupted: saved and
stopped after a signal, 128 + n ended by signal n (130 Ctrl-C, 143 SIGTERM): the second one, or before the first step.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from zerofit.prepare import arguments as preparing

app = typer.Typer(
    help="Fine-tune models that don't fit: one recipe, any strategy, the same numbers.",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

checkpoints = typer.Typer(
    help="What a run's checkpoints are, and whether they are whole.", no_args_is_help=True, rich_markup_mode=None
)
app.add_typer(checkpoints, name="checkpoint")

Nproc = Annotated[
    int | None,
    typer.Option(
        "--nproc",
        min=1,
        metavar="N",
        help="Ranks; default: 1 for single, else as many GPUs as divide the batch, on CPU up to 2.",
    ),
]
Debug = Annotated[bool, typer.Option("--debug", help="Show whole tracebacks.")]


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
    with _reported(debug):
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
    with _reported(debug):
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
    with _reported(debug):
        from zerofit.prove.compare import compare as start

        asked: dict[str, Any] = {"strategies": strategies, "gpus": gpus, "steps": steps, "max_batch": max_batch}
        code, _ = start(words, profile=not no_profile, stage=stage, output=output, **asked)
        raise typer.Exit(code)


@app.command("eval")
def evaluate(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run directory.")],
    data: Annotated[
        list[str] | None,
        typer.Option(
            "--data", metavar="PATH|a.b=c", help="Other data: its path, or data fields to change; repeatable."
        ),
    ] = None,
    nproc: Nproc = None,
    checkpoint: Annotated[int | None, typer.Option("--checkpoint", metavar="STEP", help="Default: the newest.")] = None,
    debug: Debug = False,
) -> None:
    """Evaluate a run's checkpoint."""
    with _reported(debug):
        from zerofit.launch.evaluation import evaluate as start

        raise typer.Exit(start(run, data or [], nproc=nproc, step=checkpoint, debug=debug))


@app.command()
def watch(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run directory, or a job's.")],
    terminal: Annotated[
        bool, typer.Option("--terminal", help="A table in the terminal, also of a run that trackio tracks.")
    ] = False,
    once: Annotated[bool, typer.Option("--once", help="Print how it is doing, and leave.")] = False,
) -> None:
    """Watch a run train: in trackio's dashboard where it is tracked so, else in the terminal; Ctrl-C leaves."""
    with _reported(debug=False):
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
    with _reported(debug):
        from zerofit.report.page import write_page

        path = write_page(source, output)
        typer.echo(path)
        if show:
            import webbrowser

            webbrowser.open(path.absolute().as_uri())


@app.command()
def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run directory.")],
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="A new directory.")],
    checkpoint: Annotated[int | None, typer.Option("--checkpoint", metavar="STEP", help="Default: the newest.")] = None,
    debug: Debug = False,
) -> None:
    """Write a run's whole weights, adapters merged in, to DIR, which `init_from: DIR` reads."""
    with _reported(debug):
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
            "weights alone; hf: what transformers loads; or a strategy: single, ddp, fsdp2, zero1, zero2, zero3.",
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
    with _reported(debug):
        from zerofit.launch.convert import convert as start

        asked: dict[str, Any] = {"weights_only": weights_only, "dtype": dtype, "merge_lora": merge_lora, "world": world}
        raise typer.Exit(start(source, to=to, output=output, inspect=inspect, trust=trust, debug=debug, **asked))


@app.command()
def prepare(
    inputs: preparing.Inputs,
    output: preparing.Output,
    tokenizer: preparing.Tokenizer = None,
    context: preparing.Context = None,
    fields: preparing.FieldNames = "",
    against: preparing.Against = None,
    system: preparing.System = None,
    on_bad_row: preparing.OnBadRow = "skip",
    near_duplicates: preparing.Near = "drop",
    keep_overlap: preparing.KeepOverlap = False,
    drop_long: preparing.DropLong = False,
    shard_rows: preparing.ShardRows = 100_000,
    debug: Debug = False,
) -> None:
    """Check language data of any form, and write it as shards for sft and grpo."""
    with _reported(debug):
        from zerofit.launch import pages
        from zerofit.prepare.mapping import parse_fields
        from zerofit.prepare.options import Options
        from zerofit.prepare.pipeline import prepare as start

        lists = {"inputs": tuple(inputs), "against": tuple(against or ()), "fields": parse_fields(fields)}
        start(
            Options(
                output=output,
                tokenizer=tokenizer,
                context=context,
                system=system,
                on_bad_row=on_bad_row,  # type: ignore[arg-type]  # checked there
                near_duplicates=near_duplicates,  # type: ignore[arg-type]
                keep_overlap=keep_overlap,
                drop_long=drop_long,
                shard_rows=shard_rows,
                **lists,  # type: ignore[arg-type]
            )
        )
        page = pages.make(output)
        if page is not None:
            typer.echo(f"page: {page}")


OneOrAll = Annotated[
    Path, typer.Argument(metavar="RUN|RUN@STEP|DIR", help="A run, one of its checkpoints, or a checkpoint's directory.")
]


@checkpoints.command("list")
def list_checkpoints(run: Annotated[Path, typer.Argument(metavar="RUN", help="A run directory.")]) -> None:
    """List a run's checkpoints."""
    with _reported(debug=False):
        from zerofit.launch.checkpoints import listing

        typer.echo(listing(run))


@checkpoints.command("verify")
def verify_checkpoints(asked: OneOrAll) -> None:
    """Read all of a run's checkpoints, or one, and name what is damaged; exit code 2 where anything is."""
    with _reported(debug=False):
        from zerofit.launch.checkpoints import check

        raise typer.Exit(check(asked))


@checkpoints.command("show")
def show_checkpoint(asked: OneOrAll) -> None:
    """Show one checkpoint, of a run the newest: what it is of, and what its files hold."""
    with _reported(debug=False):
        from zerofit.launch.checkpoints import show

        typer.echo(show(asked))


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
    with _reported(debug):
        from zerofit.report.trace.command import trace as start

        raise typer.Exit(start(sources, output=output, merge=merge, fail_if=fail_if or []))


@app.command()
def recipes() -> None:
    """List the recipes that come with zerofit."""
    with _reported(debug=False):
        from zerofit.config.load import load_job, recipe_names

        names = sorted(recipe_names())
        width = max(map(len, names), default=0)
        for name in names:
            typer.echo(f"{name:{width}}  {load_job(name).description}".rstrip())


@app.command()
def schema() -> None:
    """Print the JSON schema of recipes, for editors."""
    with _reported(debug=False):
        from zerofit.config.json_schema import schema_text

        typer.echo(schema_text(), nl=False)


def split_words(words: list[str]) -> tuple[str | None, list[str]]:
    """Recipe and overrides: the first word is the recipe unless it is an assignment."""
    if words and ("=" not in words[0] or Path(words[0]).exists()):
        return words[0], words[1:]
    return None, words


def without_local_rank(words: Sequence[str], environ: Mapping[str, str]) -> list[str]:
    """The words that the user wrote: DeepSpeed's launcher puts `--local_rank=N` before them, besides LOCAL_RANK."""
    names, left, rest = ("--local_rank", "--local-rank"), [], iter(words)
    if "RANK" not in environ:
        return list(words)
    for word in rest:
        if word in names:
            next(rest, None)
        elif word.partition("=")[0] not in names:
            left.append(word)
    return left


@contextmanager
def _reported(debug: bool) -> Iterator[None]:
    """Users' errors, and files that cannot be read or written, become `error: ...` lines and exit code 2."""
    from zerofit.config.errors import UserError

    try:
        yield
    except (UserError, OSError) as error:
        from zerofit.launch.failure import as_lines

        said = str(error)
        if isinstance(error, OSError):
            if error.filename is None:
                raise
            said = f"{error.filename}: {error.strerror}"

        if debug:
            import traceback

            traceback.print_exc()
        print(as_lines(said), file=sys.stderr)
        raise typer.Exit(2) from None
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


def main() -> None:
    """The `zerofit` command."""
    app(without_local_rank(sys.argv[1:], os.environ))
