"""What a checkpoint consists of. A directory without a manifest that holds is not a checkpoint."""

from __future__ import annotations

import json
import logging
import os
import re
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import xxhash
from pydantic import Field, ValidationError

from zerofit.checkpoint.outside import bad_names, leading_out, shown
from zerofit.config.errors import UserError
from zerofit.config.limited import read_limited
from zerofit.config.section import Section

NAME = "manifest.json"
_BLOCK = 8 * 2**20
_THREADS = 4  # hashing lets go of the interpreter, and a drive answers several readers faster than one

log = logging.getLogger(__name__)


class Entry(Section):
    """One file of a checkpoint."""

    size: int = Field(ge=0, lt=2**63)
    """Bytes."""
    xxh3_128: str = Field(pattern="^[0-9a-f]{32}$")
    """Hash of the contents, in hexadecimal."""


class Manifest(Section):
    """All files of a checkpoint, and what they are of."""

    version: Literal[1] = 1
    """Version of this format."""
    facts: dict[str, Any]
    """What whoever wrote it has said of it: step, strategy, world size, ..."""
    files: dict[str, Entry]
    """By path relative to the checkpoint, with forward slashes."""


def step_name(step: int) -> str:
    """Name of the directory of the checkpoint after `step` optimizer steps: `step-000500`."""
    return f"step-{step:06d}"


def step_of(path: Path) -> int | None:
    """The step that a checkpoint's directory is named after; null for other names."""
    found = re.fullmatch(r"step-(\d{6,})", path.name)
    return int(found[1]) if found else None


def steps(checkpoints: Path) -> dict[int, Path]:
    """Directories that are named as checkpoints, in order of steps; their manifests are not looked at."""
    named = {step_of(path): path for path in checkpoints.glob("step-*") if path.is_dir()}
    return {step: named[step] for step in sorted(step for step in named if step is not None)}


def write_manifest(directory: Path, facts: dict[str, Any]) -> Manifest:
    """Make everything in `directory` durable, then list it in a manifest, which is written last and atomically.

    Other processes' writes are made durable as well, as long as they were on this host. Raises OSError.
    """
    for path in [*_files(directory).values(), *(path for path in directory.rglob("*") if path.is_dir())]:
        sync(path)
    manifest = Manifest(facts=facts, files=_entries(directory))
    write_json(directory / NAME, manifest.model_dump(mode="json"))
    return manifest


def read_manifest(directory: Path) -> Manifest:
    """The manifest of a checkpoint. Raises UserError where there is none, or none that can be read or trusted."""
    path = directory / NAME
    try:
        manifest = Manifest.model_validate_json(read_limited(path))
    except FileNotFoundError:
        raise UserError(f"{directory} is not a complete checkpoint: it has no {NAME}") from None
    except (ValidationError, OSError) as error:
        raise UserError(f"{path} cannot be read: {str(error).splitlines()[0]}") from None
    bad = bad_names(manifest.files)
    if bad:
        raise UserError(f"{path} names what no checkpoint can hold: {shown(bad[0])}")
    return manifest


def verify(directory: Path, *, contents: bool = True, progress: Callable[[int], None] | None = None) -> list[str]:
    """What is wrong with a checkpoint, a line each; none if it is whole. Reads all of it.

    A file too many is a fault as well: engines read whatever matches, for instance shards of another world size. So is
    a link that leads out: what it points to is not read. Without `contents` names and sizes alone are compared.
    `progress` is told of bytes that have been read, from several threads.
    """
    try:
        expected = read_manifest(directory).files
    except UserError as error:
        return [str(error)]
    found, odd = _files(directory), leading_out(directory)
    problems = [f"{shown(name)} {fault}" for name, fault in odd.items()]
    problems += [f"{shown(name)} is missing" for name in sorted(expected.keys() - found.keys() - odd.keys())]
    problems += [
        f"{shown(name)} is not in the manifest" for name in sorted(found.keys() - expected.keys() - odd.keys())
    ]
    whole = {}
    for name in sorted(expected.keys() & found.keys() - odd.keys()):
        try:
            size = found[name].stat().st_size
        except OSError as error:
            problems.append(f"{shown(name)} cannot be read: {error.strerror}")
            continue
        if size == expected[name].size:
            whole[name] = found[name]
        else:
            problems.append(f"{shown(name)} has {size} bytes, not {expected[name].size}")
    if contents:
        hashes = _hashes(whole.values(), progress)
        for name, value in zip(whole, hashes, strict=True):
            if isinstance(value, OSError):  # a drive that fails here and there is why checkpoints are verified
                problems.append(f"{shown(name)} cannot be read: {value.strerror}")
            elif value != expected[name].xxh3_128:
                problems.append(f"{shown(name)} has other contents than were written")
    return problems


def newest(
    checkpoints: Path, damaged: Callable[[Path, list[str]], None] | None = None, before: int | None = None
) -> Path | None:
    """The checkpoint of the highest step (of those below `before`) that is whole; null if there is none.

    `damaged` is told of later ones that are not, with their faults (null: a warning is logged). An interrupted commit
    is to be swept first (`zerofit.checkpoint.commit.sweep`).
    """
    for step, path in reversed(steps(checkpoints).items()):
        if before is not None and step >= before:
            continue
        problems = verify(path)
        if not problems:
            return path
        (damaged or _warn)(path, problems)
    return None


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Replace `path` by `value`, durably: whoever reads it finds the old file or the new one, after a crash too."""
    fresh = path.with_name(f".{path.name}.tmp")
    with fresh.open("w", encoding="utf-8") as file:
        json.dump(value, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    os.replace(fresh, path)
    sync(path.parent)


def sync(path: Path) -> None:
    """Wait until a file's contents, or a directory's entries, are on the drive."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _warn(path: Path, problems: list[str]) -> None:
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    log.warning("checkpoint %s is damaged and left out: %s%s", path, problems[0], more)


def _files(directory: Path) -> dict[str, Path]:
    """Files below `directory` by relative path, its manifest left out."""
    found = {path.relative_to(directory).as_posix(): path for path in directory.rglob("*") if path.is_file()}
    return {name: path for name, path in sorted(found.items()) if name != NAME}


def _entries(directory: Path) -> dict[str, Entry]:
    found = _files(directory)
    with ThreadPoolExecutor(_THREADS) as threads:
        hashes = list(threads.map(_hash, found.values()))
    return {
        name: Entry(size=path.stat().st_size, xxh3_128=value)
        for (name, path), value in zip(found.items(), hashes, strict=True)
    }


def _hashes(paths: Iterable[Path], progress: Callable[[int], None] | None) -> list[str | OSError]:
    """The hash of each file, or why it could not be read. Ctrl-C ends it at once."""
    given_up = threading.Event()

    def read(path: Path) -> str | OSError:
        try:
            return _hash(path, progress, given_up)
        except OSError as error:
            return error

    with ThreadPoolExecutor(_THREADS) as threads:
        try:
            return list(threads.map(read, paths))
        except BaseException:
            given_up.set()
            raise


def _hash(path: Path, progress: Callable[[int], None] | None = None, given_up: threading.Event | None = None) -> str:
    state = xxhash.xxh3_128()
    with path.open("rb", buffering=0) as file:
        while (block := file.read(_BLOCK)) and not (given_up is not None and given_up.is_set()):
            state.update(block)
            if progress is not None:
                progress(len(block))
    return state.hexdigest()
