"""The command eval, of images, of language models and on CAD models."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from zerofit.cli.root import Debug, Nproc, app, reported


@app.command("eval")
def evaluate(
    target: Annotated[
        str,
        typer.Argument(
            metavar="RUN|MODEL",
            help="A run directory (RUN@STEP: that checkpoint), a directory with a language model of transformers, or "
            "a hub id.",
        ),
    ],
    data: Annotated[
        list[str] | None,
        typer.Option(
            "--data",
            metavar="PATH|a.b=c",
            help="Other data; repeatable. Images and CAD: a path, or data fields to change. Language: a file or a "
            "directory of problems with answers, or hf:ID.",
        ),
    ] = None,
    nproc: Nproc = None,
    checkpoint: Annotated[int | None, typer.Option("--checkpoint", metavar="STEP", help="Default: the newest.")] = None,
    k: Annotated[
        str | None, typer.Option("--k", metavar="K,K,...", help="Language: pass@k and maj@k for these.")
    ] = None,
    samples: Annotated[
        int | None,
        typer.Option("--samples", min=1, metavar="N", help="Language: completions of a problem; default: largest k."),
    ] = None,
    temperature: Annotated[
        float | None,
        typer.Option("--temperature", min=0, help="Language and CAD; default: 0 for one completion, else 0.7."),
    ] = None,
    top_p: Annotated[float | None, typer.Option("--top-p", metavar="P", help="Default: 1, all tokens.")] = None,
    top_k: Annotated[int | None, typer.Option("--top-k", min=0, metavar="N", help="Default: 0, all tokens.")] = None,
    max_tokens: Annotated[
        int | None,
        typer.Option(
            "--max-tokens",
            min=1,
            metavar="N",
            help="Of a completion; default: 1024 (CAD: as the longest sample), or what the context leaves.",
        ),
    ] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, metavar="N", help="The first N problems, or CAD models.")
    ] = None,
    seed: Annotated[int | None, typer.Option("--seed", min=0, help="Decides what is drawn; default: 0.")] = None,
    system: Annotated[
        str | None, typer.Option("--system", metavar="TEXT", help="Language: system message; default: the run's.")
    ] = None,
    template: Annotated[
        str | None, typer.Option("--template", metavar="NAME|FILE", help="Language: chat template; default: its own.")
    ] = None,
    fields: Annotated[
        str | None,
        typer.Option("--fields", metavar="KNOWN=YOURS,...", help="Language: your names: question=problem,answer=key."),
    ] = None,
    engine: Annotated[
        str | None, typer.Option("--engine", metavar="graph|hf", help="Language; default: graph.")
    ] = None,
    dtype: Annotated[
        str | None, typer.Option("--dtype", metavar="bf16|fp16|fp32", help="Default: by the device; fp32 on CPU.")
    ] = None,
    quantize: Annotated[
        str | None, typer.Option("--quantize", metavar="nf4", help="Language: hold linear layers in 4 bits.")
    ] = None,
    batch: Annotated[
        int | None,
        typer.Option("--batch", min=1, metavar="N", help="Completions at once on a rank; default: what fits."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", metavar="DIR", help="Default: RUN/evaluations/N, or evaluations/MODEL-N here."),
    ] = None,
    against: Annotated[
        Path | None, typer.Option("--against", metavar="DIR", help="Language: compare with this evaluation.")
    ] = None,
    mix: Annotated[
        str | None,
        typer.Option(
            "--mix", metavar="A,B+C,...", help="CAD: what is told; default: what the recipe trains. And none."
        ),
    ] = None,
    constrained: Annotated[
        bool, typer.Option("--constrained", help="CAD: hold texts to the grammar; then all of them parse.")
    ] = False,
    pictures: Annotated[
        int | None, typer.Option("--pictures", min=0, metavar="N", help="CAD: of the first N models; default: 24.")
    ] = None,
    debug: Debug = False,
) -> None:
    """Evaluate a run's checkpoint, or a language model: accuracy, pass@k, or what becomes of CAD models."""
    with reported(debug):
        from zerofit.launch.evaluating import evaluate as start
        from zerofit.launch.evaluating import given_options

        asked = given_options(
            k=k,
            samples=samples,
            temperature=temperature,
            top_p=top_p,
            top_k=top_k,
            max_tokens=max_tokens,
            limit=limit,
            seed=seed,
            system=system,
            template=template,
            fields=fields,
            engine=engine,
            dtype=dtype,
            quantize=quantize,
            batch=batch,
            output=output,
            against=against,
            mix=mix,
            constrained=constrained,
            pictures=pictures,
        )
        raise typer.Exit(start(target, data or [], asked, nproc=nproc, step=checkpoint, debug=debug))
