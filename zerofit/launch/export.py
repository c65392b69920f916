"""`zerofit export`: a run's checkpoint as one directory of whole weights, in this process, on the CPU."""

from __future__ import annotations

from pathlib import Path

from zerofit.launch import rundir, workarounds
from zerofit.launch.evaluation import chosen_checkpoint


def export(run: Path, directory: Path, *, step: int | None = None) -> None:
    """Write the checkpoint of `step`, or the newest, to `directory`. Raises UserError."""
    workarounds.quiet()
    from zerofit.checkpoint import export as files

    directory = directory.expanduser().absolute()
    files.check_free(directory)  # before the checkpoint is read
    spec = rundir.load(run)
    checkpoint = chosen_checkpoint(spec.run_dir, step)
    size = files.export(spec, checkpoint, directory)
    merged = "" if spec.recipe.model.lora is None else ", adapters merged"
    print(f"exported {checkpoint} to {directory}: {size / 2**30:.2f} GiB in float32{merged}")
