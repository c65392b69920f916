"""Archives of traces, unpacked with suspicion: only JSON, only below the target, only so much."""

from __future__ import annotations

import gzip
import stat
import tarfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Any
from zipfile import BadZipFile, ZipFile

from zerofit.config.errors import UserError

ENDINGS = (".zip", ".tar", ".tar.gz", ".tgz")
MEMBERS = 10_000
"""Members that an archive may have, traces or not."""
EACH = 2**30
"""Bytes that one of them may unpack to."""
ALL = 8 * 2**30
"""Bytes that all of them may unpack to."""
AT_ONCE = 2**20


def is_archive(path: Path) -> bool:
    """By its name."""
    return path.name.lower().endswith(ENDINGS)


def unpack(path: Path, target: Path) -> None:
    """Write the JSON files of an archive below `target`, a directory.

    Raises UserError, and nothing is to be used then, for an archive that is damaged, has a name that leads out of it,
    a link or a device, or is absurdly large.
    """
    try:
        if path.name.lower().endswith(".zip"):
            _unpack_zip(path, target)
        else:
            _unpack_tar(path, target)
    except UserError as error:
        raise UserError(f"{path} is not unpacked: {error}") from None
    except (BadZipFile, tarfile.TarError, gzip.BadGzipFile, EOFError, zlib.error, RuntimeError, NotImplementedError):
        raise UserError(f"{path} is not unpacked: it is damaged, encrypted, or no archive of its ending") from None


def _unpack_zip(path: Path, target: Path) -> None:
    with ZipFile(path) as archive:
        members = archive.infolist()
        budget = _Budget(len(members))
        for member in members:
            kind = stat.S_IFMT(member.external_attr >> 16)
            name = safe(member.filename)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise UserError(f"{name} is a link or a device; pack files alone")
            budget.expect(str(name), member.file_size)
            if not member.is_dir() and _is_trace(name):
                with archive.open(member) as file:
                    budget.copy(file, target / name)


def _unpack_tar(path: Path, target: Path) -> None:
    with _plain(path) as file, tarfile.open(fileobj=_Cautious(file), mode="r:") as archive:  # type: ignore[call-overload]
        budget = _Budget(0)
        for number, member in enumerate(archive, 1):
            budget.count(number)
            name = safe(member.name)
            if not member.isreg() and not member.isdir():
                raise UserError(f"{name} is a link or a device; pack files alone")
            budget.expect(str(name), member.size)
            if member.isreg() and _is_trace(name):
                content = archive.extractfile(member)
                assert content is not None, "a regular file has content"
                budget.copy(content, target / name)


@contextmanager
def _plain(path: Path) -> Iterator[Any]:
    opener: Callable[[Path], Any] = open_raw if path.name.lower().endswith(".tar") else gzip.open
    with opener(path) as file:
        yield file


def open_raw(path: Path) -> IO[bytes]:
    """A file's bytes."""
    return path.open("rb")


class _Cautious:
    """A file that is not read in pieces, nor to places, that no archive of traces has: tarfile believes its headers."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.tell = file.tell

    def read(self, size: int) -> bytes:
        if size > 16 * AT_ONCE:
            raise UserError("a header of it is absurdly large")
        return self.file.read(size)

    def seek(self, place: int) -> int:
        if place > 2 * ALL:
            raise UserError(f"it unpacks to more than {ALL / 2**30:g} GiB")
        return self.file.seek(place)


class _Budget:
    """What may still be unpacked."""

    def __init__(self, members: int) -> None:
        self.expected = self.written = 0
        self.count(members)

    def count(self, members: int) -> None:
        if members > MEMBERS:
            raise UserError(f"it has more than {MEMBERS:,} members")

    def expect(self, name: str, size: int) -> None:
        """Refuse what a member says of its size."""
        self.expected += size
        if size > EACH:
            raise UserError(f"{name} unpacks to more than {EACH / 2**30:g} GiB")
        if self.expected > ALL:
            raise UserError(f"it unpacks to more than {ALL / 2**30:g} GiB")

    def copy(self, source: IO[bytes], target: Path) -> None:
        """Write one member, which may lie about its size."""
        target.parent.mkdir(parents=True, exist_ok=True)
        own = 0
        with target.open("xb") as file:
            while piece := source.read(AT_ONCE):
                own += len(piece)
                self.written += len(piece)
                if own > EACH or self.written > ALL:
                    raise UserError(f"{target.name} unpacks to more than it says, or than {EACH / 2**30:g} GiB")
                file.write(piece)


def safe(name: str) -> PurePosixPath:
    """A member's path. Raises UserError where it leads out of the archive."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name or name[1:2] == ":":
        raise UserError(f"the name {name!r} leads out of it")
    return path


def _is_trace(name: PurePosixPath) -> bool:
    hidden = any(part.startswith(".") or part == "__MACOSX" for part in name.parts)
    return not hidden and name.name.endswith((".json", ".json.gz"))
