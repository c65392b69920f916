"""The options of `zerofit prepare`, as the command line reads them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Inputs = Annotated[
    list[str],
    typer.Argument(
        metavar="INPUT...",
        help="Files (JSON Lines, JSON, parquet, CSV, text; .gz, .zip), directories, or hf:ID[:CONFIG[:SPLIT]].",
    ),
]
Output = Annotated[Path, typer.Option("--output", metavar="DIR", help="A new directory.")]
Tokenizer = Annotated[
    str | None,
    typer.Option(
        "--tokenizer", metavar="PATH|NAME", help="The model's: a directory, a tokenizer.json, or a name of the hub."
    ),
]
Context = Annotated[
    int | None, typer.Option("--context", min=1, metavar="N", help="Tokens that training sees of a row.")
]
FieldNames = Annotated[
    str,
    typer.Option("--fields", metavar="KNOWN=YOURS,...", help="Your names of fields: question=problem,answer=solution."),
]
Against = Annotated[
    list[str] | None,
    typer.Option(
        "--against", metavar="FILE", help="Evaluation data: rows that share text with it are dropped; repeatable."
    ),
]
System = Annotated[
    str | None, typer.Option("--system", metavar="TEXT", help="System prompt of the rows that have none.")
]
OnBadRow = Annotated[
    str, typer.Option("--on-bad-row", metavar="skip|fail", help="What to do about a row that cannot be used.")
]
Near = Annotated[
    str,
    typer.Option(
        "--near-duplicates",
        metavar="drop|keep|off",
        help="Rows nearly the same as an earlier one: drop them, count them and keep them, or do not look for them.",
    ),
]
KeepOverlap = Annotated[
    bool, typer.Option("--keep-overlap", help="Count the rows that share text with --against, and keep them.")
]
DropLong = Annotated[
    bool, typer.Option("--drop-long", help="Drop rows longer than the context; else they are counted.")
]
ShardRows = Annotated[int, typer.Option("--shard-rows", min=1, metavar="N", help="Rows of one file, at most.")]
