"""Room for a checkpoint in the host's memory (Linux's /dev/shm): training waits for a copy, and no drive.

What a killed process leaves there would hold memory until the host restarts. So every directory has a lock that lives
as long as its process, and whoever comes next removes those that nobody holds.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import psutil

DRIVE = Path("/dev/shm")
SHARE = 0.8
"""Of the memory that is left, the largest part that a checkpoint may take."""
_PREFIX, _LOCK = "zerofit-", ".lock"
_THREADS = 4  # a drive takes several files faster than one
_CGROUP = Path("/sys/fs/cgroup")


def allows(size: int, beside: Path) -> bool:
    """Whether `size` bytes fit, and as many again where `beside`, which they are for, is in memory as well.

    There, too, what is copied first lets training go on sooner: files are written more slowly than memory is.
    """
    if not DRIVE.is_dir():
        return False
    copies = 2 if beside.stat().st_dev == DRIVE.stat().st_dev else 1
    return size <= SHARE * shutil.disk_usage(DRIVE).free and copies * size <= SHARE * _left()


class Room:
    """A new directory in memory, `path`, until `close`. Raises OSError."""

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=DRIVE))
        self._lock = os.open(self.path / _LOCK, os.O_CREAT | os.O_RDWR, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX)

    def close(self) -> None:
        """Give the memory back."""
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)


def sweep() -> list[Path]:
    """Remove this user's directories whose processes are gone. Returns them."""
    gone = []
    for path in DRIVE.glob(f"{_PREFIX}*"):
        with suppress(OSError):  # another user's, or one that is being made or removed
            lock = os.open(path / _LOCK, os.O_RDWR | os.O_NOFOLLOW)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path)
                gone.append(path)
            finally:
                os.close(lock)
    return gone


def move(source: Path, target: Path) -> None:
    """Move all files below `source` to `target`; on one drive they are renamed, else copied and removed one by one."""
    target.mkdir(exist_ok=True)  # files may be written there already
    found = sorted(source.rglob("*"))
    for path in found:
        if path.is_dir():
            (target / path.relative_to(source)).mkdir(exist_ok=True)

    def one(path: Path) -> None:
        shutil.move(path, target / path.relative_to(source))

    with ThreadPoolExecutor(_THREADS) as threads:
        list(threads.map(one, [path for path in found if path.is_file()]))


def _left() -> int:
    """Bytes of memory that are free or can be freed, on this host and in this process's control group."""
    left = psutil.virtual_memory().available
    with suppress(OSError, ValueError, KeyError):  # no control group, or none with a limit ("max")
        limit, used = (int((_CGROUP / name).read_text()) for name in ("memory.max", "memory.current"))
        lines = (_CGROUP / "memory.stat").read_text().splitlines()
        cached = int(dict(line.split() for line in lines)["inactive_file"])
        left = min(left, limit - used + cached)
    return left
