"""`zerofit convert`: a checkpoint in another form, in this process, on the CPU, one tensor at a time."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from zerofit.config.errors import UserError
from zerofit.launch import reference, rundir, workarounds
from zerofit.launch.evaluation import chosen_checkpoint

if TYPE_CHECKING:
    from zerofit.checkpoint.content import Content
    from zerofit.checkpoint.stream import Written
    from zerofit.plan.spec import RunSpec

Form = Literal["pytorch", "safetensors", "hf", "peft"]
Dtype = Literal["bf16", "fp16", "fp32"]
FORMS = get_args(Form)
STRATEGIES = ("single", "ddp", "fsdp2", "zero1", "zero2", "zero3")
"""For which the checkpoint of a run is written anew."""
TARGETS = (*FORMS, *STRATEGIES)
SUFFIX = ".pth"
PATIENCE = 2.0
"""Seconds of writing before a bar is shown."""


@dataclass(frozen=True)
class Source:
    """What is converted."""

    path: Path
    """The checkpoint's directory, or file."""
    spec: RunSpec | None = None
    """Of the run that it belongs to; null for what lies elsewhere."""
    name: str = "checkpoint"
    """How what is made of it is called, where nobody says."""


def convert(
    asked: Path,
    *,
    to: str | None = None,
    output: Path | None = None,
    weights_only: bool = False,
    dtype: str | None = None,
    merge_lora: bool = False,
    world: int | None = None,
    inspect: bool = False,
    trust: bool = False,
    debug: bool = False,
) -> int:
    """As the command says. Returns the exit code. Raises UserError before anything is written where it cannot be."""
    given: dict[str, Any] = {"--weights-only": weights_only, "--dtype": dtype, "--merge-lora": merge_lora}
    given |= {"--output": output, "--world": world, "--to": to}
    if inspect:
        _refuse(given, given, "--inspect says what is there, and writes nothing")
        from zerofit.launch.inspection import inspect as look

        return look(asked, trust=trust)
    if to is None:
        raise UserError(f"convert needs --to ({', '.join(TARGETS)}), or --inspect")
    if to not in TARGETS:
        raise UserError(f"--to {to} is none of {', '.join(TARGETS)}")
    if to in STRATEGIES:
        _refuse(given, ("--weights-only", "--dtype", "--merge-lora"), f"--to {to} keeps the whole state as it is")
        from zerofit.launch.relocate import relocate

        return relocate(asked, to, world, output, debug=debug)
    _refuse(given, ("--world",), f"--to {to} is of no world size")
    form: Form = to  # type: ignore[assignment]
    kind = _dtype(dtype)
    _check_options(form, weights_only=weights_only, dtype=kind, merge_lora=merge_lora)
    output = _free(output or Path(_default(asked, form)), form)
    export(
        source_of(asked),
        form,
        output,
        weights_only=weights_only or form in ("hf", "peft"),
        dtype=kind,
        merge=merge_lora,
        trust=trust,
    )
    return 0


def export(
    source: Source,
    form: Form,
    output: Path,
    *,
    weights_only: bool = False,
    dtype: Dtype = "fp32",
    merge: bool = False,
    trust: bool = False,
) -> None:
    """Write `output`, which is free, and say what was written. Raises UserError."""
    workarounds.quiet()
    from zerofit.checkpoint import export as files  # models: seconds of import, which a mistake need not wait for

    try:
        content = _content(source, form, dtype, optimizer=not weights_only, merge=merge, trust=trust)
        moments = () if content.optimizer is None else content.optimizer.moments.values()
        kind = files.DTYPES[dtype]
        with _bar(2 * (len(content.names) + sum(map(len, moments)))) as bar:
            if form == "pytorch":
                written = files.to_file(content, output, kind, bar)
            elif form == "safetensors" and not weights_only:
                written = files.to_canonical(content, output, progress=bar)
            else:
                written = files.to_weights(content, output, kind, progress=bar)
    except UserError as error:
        raise UserError(str(error).removeprefix("init_from: ")) from None  # the reader's words for another command
    for note in content.notes:
        print(note)
    print(_said(content, output, written, form, dtype))


def source_of(asked: Path) -> Source:
    """RUN, RUN@STEP, RUN/checkpoints/step-N or what lies elsewhere. Raises UserError, also where it is damaged."""
    from zerofit.checkpoint.manifest import NAME, verify
    from zerofit.plan.job import is_job

    run, step = reference.split(asked)
    if reference.is_run(run) or is_job(run):
        spec = rundir.load(run)
        if step is None:
            checkpoint = chosen_checkpoint(spec.run_dir, None)
        else:
            checkpoint = reference.exact(spec.run_dir, step, lambda one: f"{run}@{one}")
        return Source(checkpoint, spec, f"{spec.run_dir.name}-{checkpoint.name}")
    path = asked.expanduser().absolute()
    if not path.exists():
        raise UserError(f"{asked} does not exist: give RUN, RUN@STEP, or a checkpoint's directory or file")
    if (path / NAME).is_file():
        faults = verify(path)
        if faults:
            raise UserError(f"{asked} is damaged: {reference.in_one_line(faults)}")
    return Source(path, None, path.stem if path.is_file() else path.name)


def _content(source: Source, form: Form, dtype: Dtype, *, optimizer: bool, merge: bool, trust: bool) -> Content:
    from zerofit.checkpoint.canonical import canonical_content, is_canonical
    from zerofit.checkpoint.export import DTYPES
    from zerofit.checkpoint.foreign import beside, foreign_content

    if source.spec is None:
        if is_canonical(source.path) and merge:
            raise UserError(f"--merge-lora: {source.path} is in the canonical form: convert the run that it is of")
        if is_canonical(source.path):
            content = canonical_content(source.path, optimizer=optimizer)
        else:
            content = foreign_content(source.path, trust=trust, optimizer=optimizer, merge=merge)
        if form == "peft":
            raise UserError(f"--to peft: adapters of one of our runs are written, and {source.path} is of none")
        if form == "hf":
            from zerofit.checkpoint.hf import with_config

            content = with_config(content, beside(source.path), DTYPES[dtype])
        return content
    from zerofit.checkpoint.own import own_content
    from zerofit.models.whole import describe_model

    lora = source.spec.recipe.model.lora
    if form == "hf" and lora is not None and not merge:
        raise UserError(
            "--to hf: transformers' model has no adapters, and this run has: add --merge-lora, or use --to peft"
        )
    if form == "peft" and merge:
        raise UserError("--merge-lora: --to peft writes adapters by themselves; leave it out, or use --to hf")
    if trust:
        raise UserError(f"--trust: {source.path} is our own, and holds nothing that could run; leave it out")
    described = describe_model(source.spec)
    content = own_content(described, source.path, merge=merge and lora is not None, optimizer=optimizer)
    if form == "hf":
        from zerofit.checkpoint.hf import as_transformers

        content = as_transformers(content, described, DTYPES[dtype])
    if form == "peft":
        from zerofit.checkpoint.peft_form import as_peft

        content = as_peft(content, described)
    return content


def _dtype(word: str | None) -> Dtype:
    if word not in (None, *get_args(Dtype)):
        raise UserError(f"--dtype {word} is none of {', '.join(get_args(Dtype))}")
    return word or "fp32"  # type: ignore[return-value]


def _check_options(form: Form, *, weights_only: bool, dtype: Dtype, merge_lora: bool) -> None:
    if form in ("hf", "peft"):
        return  # weights alone in any case
    if merge_lora and not weights_only:
        raise UserError(
            "--merge-lora: what the optimizer keeps is of the adapters, not of merged weights: add --weights-only"
        )
    if form == "safetensors" and not weights_only and dtype != "fp32":
        raise UserError(f"--dtype {dtype}: with the optimizer, master weights are written in fp32: add --weights-only")


def _refuse(given: dict[str, Any], names: Any, why: str) -> None:
    """Raise UserError where an option was given that is of no use."""
    for name in names:
        if given[name] not in (None, False):
            raise UserError(f"{name}: {why}; leave it out")


def _default(asked: Path, form: Form) -> str:
    """`runs/a@500` as safetensors: `a-500-safetensors`, here."""
    name = asked.expanduser().absolute().name.replace("@", "-")
    return name.removesuffix(SUFFIX) + (f"-{form}{SUFFIX}" if form == "pytorch" else f"-{form}")


def _free(output: Path, form: Form) -> Path:
    """Raise UserError where something is there already, or where its name says that it is another thing."""
    path = output.expanduser().absolute()
    if form == "pytorch" and path.suffix not in (".pth", ".pt"):
        raise UserError(f"--output {output}: --to pytorch writes one file, whose name ends in .pth or .pt")
    if form != "pytorch" and path.suffix in (".pth", ".pt", ".safetensors"):
        raise UserError(f"--output {output}: --to {form} writes a directory")
    if path.is_dir() and not any(path.iterdir()) and form != "pytorch":
        return path
    if path.exists():
        raise UserError(f"{output} exists: name a new {'file' if form == 'pytorch' else 'directory'} with --output")
    return path


def _said(content: Content, output: Path, written: Written, form: Form, dtype: Dtype) -> str:
    from zerofit.report.checkpoints import amount

    shown = os.path.relpath(output)
    shown = str(output) if shown.startswith("..") else shown
    merged = ", adapters merged" if content.merged is not None else ""
    kept = ", with the optimizer" if content.optimizer is not None else ""
    count = f"{len(content.names)} tensors, {written.elements:,} elements in {dtype}"
    what = f"{count}{merged}{kept}: {amount(written.size)}, read back and compared"
    after = f"zerofit train RECIPE init_from={shown}"
    if form == "hf":
        after = f"transformers' from_pretrained({shown!r})"
    elif form == "peft":
        after = f"peft's PeftModel.from_pretrained(model, {shown!r})"
    elif any(".lora_" in name for name in content.names):  # which no init_from takes
        after = f"zerofit convert {shown} --inspect"
    elif form == "safetensors" and content.optimizer is not None:
        after = f"zerofit train RECIPE --resume {shown}"
    return f"wrote {shown}: {what}\nnext: {after}"


@contextmanager
def _bar(total: int) -> Iterator[Any]:
    """A bar of tensors, written and read back, on a terminal once it has taken PATIENCE."""
    from tqdm import tqdm

    with tqdm(total=total, delay=PATIENCE, disable=None, leave=False, unit="tensor") as bar:
        yield bar.update
