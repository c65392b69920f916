"""`init_from` before the run begins: where the weights are, and whether they are any."""

from __future__ import annotations

from pathlib import Path

from zerofit.checkpoint.manifest import NAME, newest, verify
from zerofit.config.errors import UserError
from zerofit.launch.reference import exact, is_run, split, tell
from zerofit.models.frozen import FROZEN
from zerofit.models.stored import kind_of


def resolve(text: str) -> Path:
    """The absolute path that weights are read from: of a run its newest complete checkpoint, or that of RUN@STEP.

    Raises UserError for what does not exist, is damaged, holds no weights, or only those that were trained.
    """
    path = Path(text).expanduser().absolute()
    base, step = split(Path(text))
    if not path.exists() and (step is None or not is_run(base)):
        raise UserError(f"init_from: {text} does not exist; a model of the hub goes into model.pretrained")
    export = "zerofit export RUN DIR"
    if step is not None and is_run(base):
        path = exact(base.expanduser().absolute(), step, lambda one: f"init_from: {base}@{one}")
        export = f"zerofit export {base} DIR --checkpoint {step}"
    elif is_run(path):
        export = f"zerofit export {text} DIR"
        checkpoint = newest(path / "checkpoints", tell)
        if checkpoint is None:
            raise UserError(f"init_from: the run {text} has no complete checkpoint")
        path = checkpoint
    elif (path / NAME).is_file():
        faults = verify(path)
        if faults:
            raise UserError(f"init_from: {text} is damaged: {faults[0]}")
    if (path / FROZEN).is_file() or (path.parent / FROZEN).is_file():
        raise UserError(
            f"init_from: {text} holds what was trained alone, not the frozen rest: export it first "
            f"({export}) and give that directory"
        )
    if path.is_file():
        path.open("rb").close()  # raises OSError, which names it, where it cannot be read
    kind_of(path)
    return path
