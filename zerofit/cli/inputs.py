"""Commands for what goes into runs: prepare, recipes, schema."""

from __future__ import annotations

import typer

from zerofit.cli.root import Debug, app, reported
from zerofit.prepare import arguments as preparing


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
    with reported(debug):
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


@app.command()
def recipes() -> None:
    """List the recipes that come with zerofit."""
    with reported(debug=False):
        from zerofit.config.load import load_job, recipe_names

        names = sorted(recipe_names())
        width = max(map(len, names), default=0)
        for name in names:
            typer.echo(f"{name:{width}}  {load_job(name).description}".rstrip())


@app.command()
def schema() -> None:
    """Print the JSON schema of recipes, for editors."""
    with reported(debug=False):
        from zerofit.config.json_schema import schema_text

        typer.echo(schema_text(), nl=False)
