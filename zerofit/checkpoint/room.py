"""What can be known about a drive before a checkpoint is written to it, and what it says after a write failed."""

from __future__ import annotations

import logging
import os
import shutil
import traceback
from contextlib import suppress
from pathlib import Path

from zerofit.checkpoint.manifest import NAME, read_manifest, steps
from zerofit.config.errors import UserError
from zerofit.train.saving import in_words

_BLOCK = 2**20

log = logging.getLogger(__name__)


class NoRoom(Exception):
    """The drive has too little space for a checkpoint."""


def last_size(checkpoints: Path) -> int | None:
    """Bytes of the newest complete checkpoint; null where there is none. Contents are not verified."""
    for path in reversed(steps(checkpoints).values()):
        with suppress(UserError):
            return sum(entry.size for entry in read_manifest(path).files.values())
    return None


def last_step(checkpoints: Path) -> int | None:
    """The step of the newest complete checkpoint; null where there is none. Contents are not verified."""
    return next((step for step, path in reversed(steps(checkpoints).items()) if (path / NAME).exists()), None)


def check_room(checkpoints: Path, needed: int) -> None:
    """Raise NoRoom unless `needed` bytes are free. A user's quota is not seen: the write itself meets it."""
    free = shutil.disk_usage(checkpoints).free
    if free < needed:
        raise NoRoom(f"{in_words(needed)} are needed and {in_words(free)} are free in {checkpoints}")


def probe(directory: Path, rank: int, size: int = 1) -> None:
    """Write `size` bytes there, make them durable, and remove them. Raises OSError where that is not possible."""
    path = directory / f".probe-{rank}"
    try:
        with path.open("wb") as file:
            file.write(bytes(size))
            file.flush()
            os.fsync(file.fileno())
    finally:
        path.unlink(missing_ok=True)


def cause(error: BaseException, directory: Path, rank: int) -> str:
    """Why writing to `directory` failed, in a line.

    torch.save and safetensors lose the system's word for it ("unexpected pos 640 vs 598"); the drive is asked again.
    """
    if not isinstance(error, (OSError, NoRoom)):
        try:
            probe(directory, rank, _BLOCK)
        except OSError as told:
            error = told
    if isinstance(error, OSError) and error.strerror is not None:
        return error.strerror
    if isinstance(error, NoRoom):
        return str(error)
    log.warning("rank %d cannot save", rank, exc_info=error)  # not the drive's doing: the line would not be enough
    return "".join(traceback.format_exception_only(error)).splitlines()[0]
