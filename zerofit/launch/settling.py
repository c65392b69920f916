"""What every evaluation that is made in parts settles before its ranks start."""

from __future__ import annotations

import os
from hashlib import sha256
from pathlib import Path

from zerofit.config.errors import UserError
from zerofit.evaluate.asked import Dtype
from zerofit.evaluate.request import NAME, Model, Request
from zerofit.evaluate.shape_request import ShapeRequest
from zerofit.launch import rundir
from zerofit.launch.dispatch import Launch
from zerofit.launch.evaluation import chosen_checkpoint
from zerofit.plan.precision import resolve_precision
from zerofit.plan.spec import Hardware, RunSpec

PART = {"cpu": 32, "cuda": 256}
"""Completions of a part, at most: what one call makes, and what an interruption can cost a rank."""
PARTS = 8
"""Parts, at least, where there are so many problems: work for several ranks."""


def size_of_parts(hardware: Hardware, each: int, problems: int) -> int:
    """How many of the problems, with `each` completions of every one, are a part."""
    return max(1, min(PART[hardware.device] // each, -(-problems // PARTS)))


def dtype_on(hardware: Hardware, asked: Dtype | None) -> Dtype:
    """Of weights and activations; null: by the device. Raises UserError for one that it cannot compute in."""
    try:
        return resolve_precision(asked or "auto", hardware)
    except UserError as error:
        raise UserError(str(error).replace("strategy.precision", "--dtype")) from None


def model_of_run(spec: RunSpec, step: int | None, template: str | None = None) -> Model:
    """The run's checkpoint of that step, or its newest. Raises UserError."""
    from zerofit.checkpoint.manifest import NAME as MANIFEST

    checkpoint = chosen_checkpoint(spec.run_dir, step)
    return Model(
        name=os.path.relpath(checkpoint),
        run=spec.run_dir,
        weights=checkpoint,
        fingerprint=sha256((checkpoint / MANIFEST).read_bytes()).hexdigest(),
        template=template,
    )


def begun(
    request: Request | ShapeRequest, directory: Path, flag: str, *, headline: str, lock: int, again: str
) -> Launch:
    """Write the request down, and say how its ranks are started."""
    rundir.write_json(directory / NAME, request.model_dump(mode="json"))
    (directory / "result.json").unlink(missing_ok=True)
    return Launch(
        run_dir=directory,
        arguments=(str(directory), flag),
        logs=directory / "logs",
        result=directory / "result.json",
        ranks=request.ranks,
        headline=headline,
        lock=lock,
        again=again,
    )
