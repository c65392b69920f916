"""`zerofit export`: a run's checkpoint as one directory of whole weights, in this process, on the CPU."""

from __future__ import annotations

from pathlib import Path

from zerofit.config.errors import UserError
from zerofit.launch import rundir, workarounds
from zerofit.launch.evaluation import chosen_checkpoint


def export(run: Path, directory: Path, *, step: int | None = None) -> None:
    """Write the checkpoint of `step`, or the newest, to `directory`. Raises UserError."""
    directory = directory.expanduser().absolute()
    _check_free(directory)
    spec = rundir.load(run)
    checkpoint = chosen_checkpoint(spec.run_dir, step)
    workarounds.quiet()
    from zerofit.checkpoint import export as files  # models: seconds of import, which a mistake need not wait for

    size = files.export(spec, checkpoint, directory)
    merged = "" if spec.recipe.model.lora is None else ", adapters merged"
    print(f"exported {checkpoint} to {directory}: {size / 2**30:.2f} GiB in float32{merged}")


def _check_free(directory: Path) -> None:
    """Raise UserError where `directory` is a file, or holds something."""
    if directory.is_dir() and not any(directory.iterdir()):
        return
    if directory.exists():
        raise UserError(f"{directory} exists: name a new directory to export to")
