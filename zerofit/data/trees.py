"""Directories and zip archives, read through one small interface."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Protocol
from zipfile import BadZipFile, ZipFile

from zerofit.config.errors import UserError

IMAGES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".ppm", ".pgm", ".pnm", ".tif", ".tiff", ".webp")


class Tree(Protocol):
    """Folders with images. A folder is written `""` (the root) or `a/b/`, a file `a/b/c.jpg`."""

    where: str

    def folders(self, under: str) -> list[str]:
        """Names of the folders right under a folder, sorted."""

    def images(self, under: str) -> list[str]:
        """Image files at any depth under a folder, sorted."""

    def has(self, member: str) -> bool:
        """Whether that file is there."""

    def read(self, member: str) -> bytes:
        """A file's bytes."""


def visible(part: str) -> bool:
    """False for what editors and operating systems leave behind (.DS_Store, ._a.jpg, __MACOSX)."""
    return not part.startswith(".") and part != "__MACOSX"


class Directory:
    """A directory; links to directories are followed."""

    def __init__(self, path: Path) -> None:
        self.path, self.where = path, str(path)

    def folders(self, under: str) -> list[str]:
        with os.scandir(self.path / under) as entries:
            return sorted(entry.name for entry in entries if visible(entry.name) and entry.is_dir())

    def images(self, under: str) -> list[str]:
        found = []
        for parent, folders, files in os.walk(self.path / under, followlinks=True):
            folders[:] = filter(visible, folders)
            here = Path(parent).relative_to(self.path).as_posix()
            prefix = "" if here == "." else here + "/"
            found += [prefix + name for name in files if visible(name) and name.lower().endswith(IMAGES)]
        return sorted(found)

    def has(self, member: str) -> bool:
        return (self.path / member).is_file()

    def read(self, member: str) -> bytes:
        return (self.path / member).read_bytes()


class Archive:
    """A zip archive, read in place. Each process opens it for itself."""

    def __init__(self, path: Path) -> None:
        self.path, self.where = path, str(path)
        self._open: ZipFile | None = None
        try:
            names = self._zip().namelist()
        except (BadZipFile, OSError) as error:
            raise UserError(f"data.path: {path} cannot be read as a zip archive ({error})") from None
        self._names: list[str] | None = sorted(name for name in names if all(map(visible, name.split("/"))))

    def __getstate__(self) -> dict[str, object]:
        return {"path": self.path, "where": self.where, "_open": None, "_names": None}  # workers only read members

    def _zip(self) -> ZipFile:
        if self._open is None:
            self._open = ZipFile(self.path)
        return self._open

    def _under(self, under: str) -> list[str]:
        assert self._names is not None, "listed in the process that opened it"
        return [name for name in self._names if name.startswith(under)]

    def folders(self, under: str) -> list[str]:
        rest = (name[len(under) :] for name in self._under(under))
        return sorted({name.split("/", 1)[0] for name in rest if "/" in name})

    def images(self, under: str) -> list[str]:
        return [name for name in self._under(under) if name.lower().endswith(IMAGES)]

    def has(self, member: str) -> bool:
        return member in self._under(member)

    def read(self, member: str) -> bytes:
        return self._zip().read(member)
