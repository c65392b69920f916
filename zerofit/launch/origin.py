"""`init_from` before the run begins: where the weights are, and whether they are any."""

from __future__ import annotations

from pathlib import Path

from zerofit.checkpoint.manifest import NAME, newest, verify
from zerofit.config.errors import UserError
from zerofit.models.frozen import FROZEN
from zerofit.models.stored import kind_of


def resolve(text: str) -> Path:
    """The absolute path that a run's weights are read from: of a run directory its newest complete checkpoint.

    Raises UserError for what does not exist, is damaged, holds no weights, or only those that were trained.
    """
    path = Path(text).expanduser().absolute()
    if not path.exists():
        raise UserError(f"init_from: {text} does not exist; a model of the hub goes into model.pretrained")
    run = "RUN"
    if (path / "run.json").is_file():
        run = text
        checkpoint = newest(path / "checkpoints")
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
            f"(zerofit export {run} DIR) and give that directory"
        )
    if path.is_file():
        path.open("rb").close()  # raises OSError, which names it, where it cannot be read
    kind_of(path)
    return path
