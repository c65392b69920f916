"""The command line itself: the app that commands join, what several of them take, and how errors are said."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

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
def reported(debug: bool) -> Iterator[None]:
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
