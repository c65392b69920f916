"""`zerofit export RUN DIR`: whole weights, adapters merged in.

Of a language model that is `zerofit convert RUN --to hf --merge-lora --output DIR`, with its tokenizer; of an image
classifier `--to safetensors --weights-only`, under our own names.
"""

from __future__ import annotations

from pathlib import Path

from zerofit.config.errors import UserError
from zerofit.launch import convert, rundir
from zerofit.launch.evaluation import chosen_checkpoint


def export(run: Path, directory: Path, *, step: int | None = None) -> None:
    """Write the checkpoint of `step`, or the newest, to `directory`. Raises UserError."""
    directory = directory.expanduser().absolute()
    _check_free(directory)
    spec = rundir.load(run)
    checkpoint = chosen_checkpoint(spec.run_dir, step)
    form: convert.Form = "hf" if spec.recipe.model.kind == "causal_lm" else "safetensors"
    convert.export(convert.Source(checkpoint, spec), form, directory, weights_only=True, merge=True)


def _check_free(directory: Path) -> None:
    """Raise UserError where `directory` is a file, or holds something."""
    if directory.is_dir() and not any(directory.iterdir()):
        return
    if directory.exists():
        raise UserError(f"{directory} exists: name a new directory to export to")
