"""`zerofit export RUN DIR`: what `zerofit convert RUN --to safetensors --weights-only --merge-lora --output DIR` is."""

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
    convert.export(convert.Source(checkpoint, spec), "safetensors", directory, weights_only=True, merge=True)


def _check_free(directory: Path) -> None:
    """Raise UserError where `directory` is a file, or holds something."""
    if directory.is_dir() and not any(directory.iterdir()):
        return
    if directory.exists():
        raise UserError(f"{directory} exists: name a new directory to export to")
