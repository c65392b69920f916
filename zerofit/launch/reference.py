"""Which checkpoint a command means: the newest of RUN, RUN@STEP, or the path RUN/checkpoints/step-000500."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

from zerofit.checkpoint.manifest import NAME, newest, step_of, steps, verify
from zerofit.config.errors import UserError
from zerofit.plan.files import RUN_FILE

STEP = re.compile(r"(?P<run>.+)@(?P<step>[0-9]{1,18})")
FAULTS = 3
"""How many of a checkpoint's faults one line names."""


def split(asked: Path) -> tuple[Path, int | None]:
    """The run that is asked for, and the step; null where none is given: the newest.

    A directory that really has an @ in its name is itself. Raises UserError for a step that is no number.
    """
    path = asked.expanduser().absolute()
    step = step_of(path)
    if step is not None and path.parent.name == "checkpoints":
        return Path(os.path.relpath(path.parents[1])), step
    if path.exists():
        return asked, None
    found = STEP.fullmatch(str(asked))
    if found is not None:
        return Path(found["run"]), int(found["step"])
    run, at, word = str(asked).rpartition("@")
    if at and Path(run).expanduser().exists():
        raise UserError(f"{asked}: a checkpoint is named by its step, a whole number, not {word!r}: {run}@500")
    return asked, None


def exact(run_dir: Path, step: int, words: Callable[[int], str]) -> Path:
    """The whole checkpoint of `step`. Raises UserError where it is missing or damaged.

    `words` is how the user writes a step here (`--resume runs/a@500`): for what was asked, and for what is right.
    """
    checkpoints = run_dir / "checkpoints"
    complete = {at: path for at, path in steps(checkpoints).items() if (path / NAME).is_file()}
    if step not in complete:
        raise UserError(
            f"{words(step)}: {os.path.relpath(run_dir)} has no complete checkpoint of that step "
            f"(there are: {', '.join(map(str, complete)) or 'none'})"
        )
    faults = verify(complete[step])
    if faults:
        earlier = newest(checkpoints, lambda *_: None, before=step)
        at = None if earlier is None else step_of(earlier)
        right = "no earlier one is whole" if at is None else f"the newest whole one before it is {words(at)}"
        raise UserError(f"{words(step)}: that checkpoint is damaged: {in_one_line(faults)}; {right}")
    return complete[step]


def tell(path: Path, faults: list[str]) -> None:
    """Say on the terminal that a checkpoint is damaged, so that an earlier one is taken."""
    print(f"checkpoint {os.path.relpath(path)} is damaged and left out: {in_one_line(faults, 1)}", file=sys.stderr)


def in_one_line(faults: list[str], most: int = FAULTS) -> str:
    """The first few, and how many more there are."""
    more = f" (and {len(faults) - most} more)" if len(faults) > most else ""
    return "; ".join(faults[:most]) + more


def is_run(path: Path) -> bool:
    """Whether a directory is a run's."""
    return (path.expanduser() / RUN_FILE).is_file()
