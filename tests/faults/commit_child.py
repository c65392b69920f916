"""Commits step 2, once for every call on the way that changes the drive, and dies just before that call.

Run as a script: `commit_child.py DIRECTORY SCENE`; makes DIRECTORY/0, DIRECTORY/1, ... and prints how many died.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from zerofit.checkpoint import commit as room
from zerofit.checkpoint.manifest import step_name

OPERATIONS = ("fsync", "rename", "replace", "unlink", "rmdir", "mkdir")
PAYLOADS = {1: b"one" * 10_000, 2: b"two" * 10_000, 22: b"two again" * 10_000}


def write(checkpoints: Path, step: int, payload: int) -> Path:
    directory = room.stage(checkpoints, step) / f"checkpoint-{step}"
    (directory / "global_step").mkdir(parents=True)
    (directory / "model.safetensors").write_bytes(PAYLOADS[payload])
    (directory / "global_step" / "rank0.pt").write_bytes(PAYLOADS[payload][:100])
    return directory


def prepare(checkpoints: Path, scene: str) -> None:
    room.commit(write(checkpoints, 1, 1), checkpoints, 1, {})
    if scene == "replace":
        room.commit(write(checkpoints, 2, 2), checkpoints, 2, {})


def act(checkpoints: Path, scene: str) -> None:
    room.sweep(checkpoints)
    room.commit(write(checkpoints, 2, 22 if scene == "replace" else 2), checkpoints, 2, {"strategy": "ddp"})
    room.record_best(checkpoints, room.Best(step=2, value=0.5))
    room.rotate(checkpoints, keep=1, step=2)


def die_before(number: int) -> None:
    """Kill this process as the `number`-th operation begins."""
    left = number

    def deadly(operation: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            nonlocal left
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left -= 1
            return operation(*arguments, **options)

        return call

    for name in OPERATIONS:
        setattr(os, name, deadly(getattr(os, name)))


def main(directory: Path, scene: str) -> None:
    deaths = 0
    while True:
        checkpoints = directory / str(deaths) / "checkpoints"
        checkpoints.mkdir(parents=True)
        prepare(checkpoints, scene)
        child = os.fork()
        if child == 0:
            die_before(deaths)
            act(checkpoints, scene)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if os.WIFEXITED(status):
            assert os.WEXITSTATUS(status) == 0
            break
        assert os.WTERMSIG(status) == signal.SIGKILL
        deaths += 1
    assert step_name(2) in os.listdir(checkpoints)
    shutil.rmtree(directory / str(deaths))
    print(deaths)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
