"""Run directories: a new one, an old one, and the result files in them."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

from zerofit.config.errors import UserError
from zerofit.plan.files import read_spec
from zerofit.plan.job import JOB_FILE, is_job, read_job
from zerofit.plan.spec import RunSpec

WAIT = 3.0
"""Seconds for ranks to end whose launcher was killed: they hold the run directory as well."""


def candidates(name: str, run_dir: Path | None) -> Iterator[Path]:
    """Absolute paths that a new run may take, best first: `run_dir` alone, or runs/NAME, runs/NAME-2, ..."""
    if run_dir is not None:
        yield run_dir.expanduser().absolute()
    else:
        for number in count(1):
            yield Path("runs", name if number == 1 else f"{name}-{number}").absolute()


def make(name: str, run_dir: Path | None) -> tuple[Path, tuple[Path, ...]]:
    """The directory of a new run, and all those that were made for it, deepest first.

    Raises UserError where `run_dir` holds something, or cannot be made.
    """
    for path in candidates(name, run_dir):
        try:
            missing = tuple(one for one in (path, *path.parents) if not one.exists())
            path.mkdir(parents=True)
        except FileExistsError:
            if run_dir is None:
                continue
            if not path.is_dir() or any(path.iterdir()):
                raise UserError(
                    f"{path} exists: name another run_dir, or go on with that run: --resume {path}"
                ) from None
        except OSError as error:
            raise UserError(f"the run directory {path} cannot be made: {error.strerror}") from None
        return path, missing
    raise AssertionError("candidates never end without a choice")


def has_begun(path: Path) -> bool:
    """Whether a run has recorded a step or kept a checkpoint."""
    metrics = path / "metrics.jsonl"
    return (metrics.exists() and metrics.stat().st_size > 0) or any(path.glob("checkpoints/step-*"))


def has_finished(path: Path) -> bool:
    """Whether a run has left its result."""
    return exit_of(path) == "finished"


def exit_of(path: Path) -> str | None:
    """How a run ended: finished, interrupted, failed; null where it does not say."""
    return _result_of(path).get("exit")


def error_of(path: Path) -> str | None:
    """Why a run has failed, in its rank's words; null where it does not say."""
    return _result_of(path).get("error")


def _result_of(path: Path) -> dict[str, Any]:
    try:
        result: dict[str, Any] = json.loads((path / "result.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return result


def remove(path: Path, made: Sequence[Path]) -> None:
    """Empty a run's directory, then remove those that were `made` for it, deepest first, as far as they are empty."""
    for one in path.iterdir():
        if one.is_dir():
            shutil.rmtree(one, ignore_errors=True)
        else:
            one.unlink(missing_ok=True)
    with suppress(OSError):  # another run has come into one of them
        for directory in made:
            if [one.name for one in directory.iterdir()] == [JOB_FILE]:  # a job whose first stage it was
                (directory / JOB_FILE).unlink()
            directory.rmdir()


def claim(path: Path) -> int:
    """Lock a run directory against a second launcher, until the file descriptor that is returned, and copies, close.

    Raises UserError where it stays locked for WAIT seconds.
    """
    handle, deadline = os.open(path, os.O_RDONLY), time.monotonic() + WAIT
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() < deadline:
                time.sleep(0.05)
                continue
            os.close(handle)
            raise UserError(f"{path} is in use: another zerofit process is at work in it") from None
        except OSError:
            pass  # a file system without locks: nothing to hold, nothing to learn
        return handle


def load(path: Path) -> RunSpec:
    """The RunSpec of an existing run, wherever its directory lies now. Raises UserError where it is none."""
    if is_job(path):
        runs = [str(run) for run in read_job(path).runs(path) if run.exists()]
        raise UserError(f"{path} is a job of stages, a run each: name one of them: {', '.join(runs) or 'none yet'}")
    return read_spec(path.expanduser().absolute())


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write the file, whole or not at all."""
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    part.replace(path)


def add_result(path: Path, **figures: Any) -> None:
    """Add figures to a result file, which need not exist."""
    old = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    write_json(path, {**old, **figures})
