"""Directories of samples, each named by a hash of all that decides what is in it. One that is there is whole."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import xxhash

from zerofit.config.errors import UserError

FACTS = "facts.json"
ABANDONED = 7 * 24 * 3600.0
"""Seconds without a new file after which nobody is at work in a directory any more."""


def default_root(environ: Mapping[str, str]) -> Path:
    """$ZEROFIT_CACHE/samples, or ~/.cache/zerofit/samples."""
    given = environ.get("ZEROFIT_CACHE")
    return (Path(given) if given else Path.home() / ".cache" / "zerofit") / "samples"


def kept(root: Path, decides: dict[str, Any], make: Callable[[Path], dict[str, Any]]) -> tuple[Path, dict[str, Any]]:
    """The directory of what `decides` decides, and its facts: from before, or made now by `make`, in an empty one.

    Several processes may want the same at once: each makes its own, and the first that is done is taken by all.
    Raises UserError where the drive does not take it, or where what is there was damaged.
    """
    root = root.expanduser().absolute()
    key = xxhash.xxh3_128(json.dumps(decides, sort_keys=True, default=str).encode()).hexdigest()
    directory = root / key
    if not directory.is_dir():
        _make(directory, decides, make)
    return directory, _facts(directory)


def _make(directory: Path, decides: dict[str, Any], make: Callable[[Path], dict[str, Any]]) -> None:
    root = directory.parent
    try:
        root.mkdir(parents=True, exist_ok=True)
        _clear(root)
        staging = Path(tempfile.mkdtemp(prefix=f".{directory.name}.", dir=root))
        try:
            facts = make(staging)
            record = {
                "decided_by": decides,
                "facts": facts,
                "sizes": {file.name: file.stat().st_size for file in staging.iterdir()},
            }
            (staging / FACTS).write_text(json.dumps(record, indent=1, default=str) + "\n", encoding="utf-8")
            staging.chmod(0o755)  # mkdtemp's is for us alone
            _take(staging, directory)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    except OSError as error:
        raise UserError(
            f"data: cannot keep samples in {root} ({error.strerror or error}); make room there, or name another "
            "directory in ZEROFIT_CACHE"
        ) from None


def _clear(root: Path) -> None:
    """Remove what the killed have left half-made."""
    for path in root.glob(".*"):
        with suppress(OSError):  # another clears it too
            if time.time() - path.stat().st_mtime > ABANDONED:
                shutil.rmtree(path, ignore_errors=True)


def _take(staging: Path, directory: Path) -> None:
    try:
        staging.rename(directory)
    except OSError:  # somebody was faster, and his is the same
        if not (directory / FACTS).is_file():
            raise


def _facts(directory: Path) -> dict[str, Any]:
    try:
        record = json.loads((directory / FACTS).read_text(encoding="utf-8"))
        sizes = {name: (directory / name).stat().st_size for name in record["sizes"]}
        whole, facts = sizes == record["sizes"], record["facts"]
    except (OSError, ValueError, KeyError, TypeError):
        whole = False
    if not whole:
        raise UserError(f"data: the samples in {directory} are damaged; remove that directory, and run again")
    with suppress(OSError):  # it may be another's
        os.utime(directory)  # when it was last of use, for who clears up
    return dict(facts)
