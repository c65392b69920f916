"""Small files that others may have written, read within a limit: they decide neither our memory nor our patience."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from zerofit.config.errors import UserError

MOST = 64 * 2**20
"""Bytes of JSON that are still parsed: a manifest of half a million files is smaller."""


def read_limited(path: Path, most: int = MOST) -> bytes:
    """The contents of a file. Raises UserError for more than `most` bytes and for pipes and devices; OSError."""
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # a pipe that nobody writes to must not make us wait
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise UserError(f"{path} is not read: it is no regular file")
        with open(handle, "rb", closefd=False) as file:
            content = file.read(most + 1)
    finally:
        os.close(handle)
    if len(content) > most:
        raise UserError(f"{path} is not read: it has more than {most / 2**20:g} MiB")
    return content
