"""What ran: versions of the libraries whose numbers matter, and the revision of the working directory's repository."""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess
from pathlib import Path

from packaging.requirements import Requirement

LIBRARIES = (
    "zerofit",
    "torch",
    "transformers",
    "accelerate",
    "deepspeed",
    "kornia",
    "datasets",
    "numpy",
    "peft",
    "safetensors",
)


def versions() -> dict[str, str]:
    """Version of python and of each library that is installed."""
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def ranges() -> dict[str, Requirement]:
    """What this release asks of each library that runs need, where it is needed here; extras apart.

    Empty where zerofit itself is not installed and lies on the path alone.
    """
    try:
        asked = importlib.metadata.requires("zerofit") or []
    except importlib.metadata.PackageNotFoundError:
        return {}
    found = [Requirement(line) for line in asked]
    return {one.name: one for one in found if one.marker is None or one.marker.evaluate({"extra": ""})}


def git_revision(directory: Path | None = None) -> str | None:
    """Commit of the repository around `directory` (null: the current one), `+changes` added where tracked files differ.

    None outside a repository, before the first commit, and without git. Untracked files do not count: run
    directories are such.
    """
    revision = _git(directory, "rev-parse", "HEAD")
    if revision is None:
        return None
    changes = _git(directory, "status", "--porcelain", "--untracked-files=no")
    return f"{revision}+changes" if changes else revision


def _git(directory: Path | None, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], cwd=directory, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
