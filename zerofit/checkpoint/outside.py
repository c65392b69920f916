"""What would lead out of a checkpoint: names in its manifest, and links among its files."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

LONGEST = 200
"""Characters of a name that are shown."""


def bad_names(names: Iterable[str]) -> list[str]:
    """Those that are no plain path below a directory: absolute ones, and such as `../x`, `a//b` and the empty one."""
    return [
        name for name in names if "\0" in name or any(part in ("", ".", "..") for part in name.split("/"))
    ]  # of an absolute one the first part is empty


def leading_out(directory: Path) -> dict[str, str]:
    """Links in a checkpoint that point out of it, and what is neither file nor directory: relative path -> fault."""
    root, faults = os.path.realpath(directory), {}
    for path in sorted(directory.rglob("*")):
        name = path.relative_to(directory).as_posix()
        target = os.path.realpath(path) if path.is_symlink() else None
        if target is not None and not Path(target).is_relative_to(root):
            faults[name] = f"is a link that leads out of the checkpoint, to {shown(target)}"
        elif not path.is_file() and not path.is_dir():
            faults[name] = "is neither a file nor a directory"
    return faults


def shown(name: str) -> str:
    """A name that others chose, fit for a terminal and one line."""
    plain = name if name.isprintable() else ascii(name)
    return plain if len(plain) <= LONGEST else f"{plain[:LONGEST]}..."
