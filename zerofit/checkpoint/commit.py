"""How a checkpoint comes to be, and goes: at every moment of a crash it is there whole, or not there.

Written in `checkpoints/.staging-step-000500`, given its manifest, renamed to `checkpoints/step-000500`. Everything here
is called by one process; whoever has several puts barriers around it.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from zerofit.checkpoint.manifest import NAME, step_name, step_of, steps, sync, write_json, write_manifest
from zerofit.config.errors import UserError
from zerofit.config.limited import read_limited
from zerofit.config.section import Section

BEST = "best.json"
_STAGING, _REPLACED, _DELETING = ".staging-", ".replaced-", ".deleting-"


class Best(Section):
    """Which checkpoint is the best so far."""

    step: int
    """After how many optimizer steps."""
    value: float
    """Its figure: `evaluate.best_metric` over the validation split."""


def staging(checkpoints: Path, step: int) -> Path:
    """Where the checkpoint of `step` is written before it is one; made and swept by whoever writes."""
    return checkpoints / f"{_STAGING}{step_name(step)}"


def unfinished(checkpoints: Path) -> dict[int, Path]:
    """Staging directories that are there, in order of steps: being written now, or left by a crash."""
    steps_ = {step_of(Path(path.name.removeprefix(_STAGING))): path for path in checkpoints.glob(f"{_STAGING}step-*")}
    return {step: steps_[step] for step in sorted(step for step in steps_ if step is not None)}


def stage(checkpoints: Path, step: int) -> Path:
    """Make the staging directory of `step`, empty. Raises OSError."""
    directory = staging(checkpoints, step)
    _remove(directory)
    directory.mkdir(parents=True)
    return directory


def commit(written: Path, checkpoints: Path, step: int, facts: dict[str, Any]) -> Path:
    """Make `written`, the staging directory or one inside it, the checkpoint of `step`; durable when this returns.

    A checkpoint of the same step is replaced. Where this raises OSError (a full disk), what was there before is whole,
    at the latest after `sweep`.
    """
    target, aside = checkpoints / step_name(step), checkpoints / f"{_REPLACED}{step_name(step)}"
    write_manifest(written, {**facts, "step": step})
    if target.exists():
        _remove(aside)
        os.rename(target, aside)  # rename(2) replaces no directory that has contents; `sweep` undoes half of this
    os.rename(written, target)
    sync(checkpoints)
    _remove(aside)
    _remove(staging(checkpoints, step))
    return target


def sweep(checkpoints: Path) -> list[str]:
    """Undo what a crash left half done; to be called before checkpoints are looked for. Returns what was done."""
    done = []
    for path in sorted(checkpoints.glob(f"{_REPLACED}*")):
        target = checkpoints / path.name.removeprefix(_REPLACED)
        if not target.exists():
            os.rename(path, target)
            done.append(f"put {target.name} back")
    for prefix in (_REPLACED, _STAGING, _DELETING):
        for path in sorted(checkpoints.glob(f"{prefix}*")):
            _remove(path)
            done.append(f"removed {path.name}")
    return done


def rotate(checkpoints: Path, keep: int, step: int) -> list[Path]:
    """Delete checkpoints but the newest `keep` up to `step`, the one just committed, and the best. Returns them.

    Later ones are damaged ones that a resumed run has not reached yet: they are neither counted nor touched.
    """
    assert keep >= 1, keep
    best = read_best(checkpoints)
    complete = [one for one, path in steps(checkpoints).items() if one <= step and (path / NAME).exists()]
    gone = []
    for old in complete[:-keep]:
        if best is not None and old == best.step:
            continue
        path = checkpoints / step_name(old)
        doomed = checkpoints / f"{_DELETING}{path.name}"
        _remove(doomed)
        os.rename(path, doomed)  # so that no half of it is ever seen
        _remove(doomed)
        gone.append(path)
    return gone


def record_best(checkpoints: Path, best: Best) -> None:
    """Write which checkpoint is the best; to be called once that one is committed, and before `rotate`."""
    write_json(checkpoints / BEST, best.model_dump(mode="json"))


def read_best(checkpoints: Path) -> Best | None:
    """Which checkpoint is the best; null while none is. Raises UserError where best.json cannot be read."""
    path = checkpoints / BEST
    try:
        return Best.model_validate_json(read_limited(path))
    except FileNotFoundError:
        return None
    except ValidationError:
        raise UserError(f'{path} is damaged: write {{"step": ..., "value": ...}} there, or remove it') from None


def _remove(directory: Path) -> None:
    if directory.exists():
        shutil.rmtree(directory)
