"""The directory of DeepSpeed's compiled ops: one per Python environment, and free of stale locks.

PyTorch guards each build with a bare file named `lock`. A build that is killed leaves it behind, and every later start
waits for it for ever. So each rank that may build holds a shared `flock` on the directory, which the kernel drops when
the rank dies, however it dies: whoever gets it exclusively knows that nobody builds and that every `lock` is stale.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import sys
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path


def directory(environ: Mapping[str, str]) -> Path:
    """A directory of this environment's own, under TORCH_EXTENSIONS_DIR where that is set, else in the user's cache."""
    identity = "\n".join((sys.prefix, sys.version, version("torch")))
    key = "zerofit-" + hashlib.sha256(identity.encode()).hexdigest()[:12]
    cache = environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    root = Path(environ.get("TORCH_EXTENSIONS_DIR") or Path(cache, "torch_extensions"))
    return root if root.name == key else root / key


def clear_stale_locks(cache: Path) -> list[Path]:
    """Remove the locks of builders that are gone and return them; none while any rank holds the directory."""
    return _stale_locks(cache, remove=True)


def stale_locks(cache: Path) -> list[Path]:
    """The same, and leave them where they are."""
    return _stale_locks(cache, remove=False)


def _stale_locks(cache: Path, *, remove: bool) -> list[Path]:
    if not cache.is_dir():
        return []
    handle = os.open(cache, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        stale = sorted(cache.glob("*/lock"))
        for lock in stale if remove else ():
            lock.unlink(missing_ok=True)
    except OSError:  # held by a rank, or a file system without flock: nothing is known, so nothing is removed
        return []
    else:
        return stale
    finally:
        os.close(handle)


def hold(cache: Path) -> None:
    """Hold the directory until this process ends, so that a lock in it counts as alive."""
    try:
        cache.mkdir(parents=True, exist_ok=True)
        fcntl.flock(os.open(cache, os.O_RDONLY), fcntl.LOCK_SH)
    except OSError:
        return  # without a directory nothing is built here, and without flock nothing is removed
