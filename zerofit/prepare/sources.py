"""Which files the inputs are: files, directories, members of zip archives, compressed or not. Nothing is unpacked."""

from __future__ import annotations

import gzip
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, cast
from zipfile import BadZipFile, ZipFile, ZipInfo

from zerofit.config.errors import UserError
from zerofit.prepare.rows import shown

FORMATS = (".jsonl", ".ndjson", ".json", ".parquet", ".arrow", ".csv", ".tsv", ".txt")
HUB = "hf:"
OURS = ("manifest.json", "prepare.json")
BESIDE = (*OURS, "dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json")
"""Files that lie in directories of data and hold none."""
ABOUT = ("readme", "license", "licence", "notice", "citation", "changelog", "requirements")
"""Texts that are about data."""
INFLATION = 200
"""Times that a zip member may grow: text seldom does 20, and a bomb 1,000."""
SMALL = 64 * 2**20
"""Bytes up to which it may grow as it likes."""


@dataclass(frozen=True)
class Source:
    """Rows of one format in one stream."""

    name: str
    """As it is shown and written down: relative to what all inputs have in common."""
    format: str
    """One of FORMATS, or HUB."""
    path: Path
    """The file that it is, or is in."""
    open: Callable[[], AbstractContextManager[IO[bytes]]]


def find(inputs: Sequence[str]) -> list[Source]:
    """The sources in the order of the inputs, within a directory and an archive by name. Raises UserError."""
    files = [file for given in inputs for file in _files(given)]
    local = [os.path.abspath(path) for path, _ in files if path is not None]
    top = os.path.commonpath([os.path.dirname(path) for path in local]) if local else ""
    found: list[Source] = []
    for path, given in files:
        if path is None:
            found.append(Source(given, HUB, Path(given), partial(_nothing, given)))
            continue
        found += _sources(path, Path(os.path.relpath(os.path.abspath(path), top)).as_posix())
    return found


def _files(given: str) -> Iterator[tuple[Path | None, str]]:
    if given.startswith(HUB):
        yield None, given
        return
    path = Path(given).expanduser()
    if path.is_dir():
        names = sorted(_walk(path))
        if not names:
            raise UserError(
                f"{given} is a directory without files of data ({', '.join(FORMATS)}; .gz and .zip of them)"
            )
        yield from ((path / name, given) for name in names)
    elif path.is_file():
        if _format(path.name) is None and path.suffix.lower() != ".zip":
            raise UserError(f"{given} is none of {', '.join(FORMATS)}, nor .gz or .zip of them")
        yield path, given
    else:
        hub = f" (a data set of the hub is written {HUB}{given})" if given.count("/") == 1 else ""
        raise UserError(
            f"{given} does not exist{hub}" if not path.exists() else f"{given} is neither file nor directory"
        )


def _walk(top: Path) -> Iterator[str]:
    """Files of data under a directory, relative to it; links to directories are not followed."""
    for parent, folders, names in os.walk(top):
        if set(OURS) <= set(names) and Path(parent) != top:
            folders[:] = []
            continue  # what was prepared before
        folders[:] = filter(_visible, folders)
        for name in filter(_visible, names):
            path = Path(parent, name)
            known = _format(name) is not None or name.lower().endswith(".zip")
            if known and not _beside(name) and path.is_file():
                yield path.relative_to(top).as_posix()


def _sources(path: Path, name: str) -> Iterator[Source]:
    if path.suffix.lower() == ".zip":
        yield from _members(path, name)
        return
    kind = _format(path.name)
    assert kind is not None
    packed = path.name.lower().endswith(".gz")
    yield Source(shown(name), kind, path, partial(_unpacked if packed else _plain, path))


def _plain(path: Path) -> AbstractContextManager[IO[bytes]]:
    return path.open("rb")


@contextmanager
def _unpacked(path: Path) -> Iterator[IO[bytes]]:
    with gzip.open(path, "rb") as file:
        yield cast("IO[bytes]", file)


def _members(path: Path, name: str) -> Iterator[Source]:
    try:
        with ZipFile(path) as archive:
            infos = sorted(archive.infolist(), key=lambda info: info.filename)
    except (BadZipFile, NotImplementedError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read as a zip archive ({error})") from None
    chosen = [info for info in infos if not info.is_dir() and all(map(_visible, info.filename.split("/")))]
    chosen = [info for info in chosen if _format(info.filename) and not _beside(os.path.basename(info.filename))]
    if not chosen:
        raise UserError(f"{path} has no members of data ({', '.join(FORMATS)}, or .gz of them)")
    for info in chosen:
        member = shown(info.filename)
        if info.flag_bits & 1:
            raise UserError(f"{path}: its member {member} is encrypted; unpack it first")
        if info.file_size > max(SMALL, INFLATION * info.compress_size):
            raise UserError(
                f"{path}: its member {member} would grow from {info.compress_size:,} to {info.file_size:,} bytes, more "
                f"than {INFLATION} times; unpack it yourself where you trust it"
            )
        kind = _format(info.filename)
        assert kind is not None
        yield Source(f"{name}/{member}", kind, path, partial(_member, path, info))


@contextmanager
def _member(path: Path, info: ZipInfo) -> Iterator[IO[bytes]]:
    with ZipFile(path) as archive, archive.open(info) as stream:
        if info.filename.lower().endswith(".gz"):
            with gzip.open(stream, "rb") as unpacked:
                yield cast("IO[bytes]", unpacked)
        else:
            yield stream


def _format(name: str) -> str | None:
    """By the suffix, before .gz; null for what is no data."""
    kind = Path(name.lower().removesuffix(".gz")).suffix
    return kind if kind in FORMATS else None


def _visible(part: str) -> bool:
    return (not part.startswith(".") and part != "__MACOSX") or part == "."


def _beside(name: str) -> bool:
    """What lies in directories of data and is none; `cache-*.arrow` are what `datasets` has computed."""
    about = name.lower().endswith(".txt") and name.lower().startswith(ABOUT)
    return name in BESIDE or name.startswith("cache-") or about


def _nothing(given: str) -> AbstractContextManager[IO[bytes]]:
    raise AssertionError(f"{given} is no file")
