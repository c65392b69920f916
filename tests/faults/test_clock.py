"""A clock that jumps: nothing waits by it, and neither `newest` nor rotation looks at times of files."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from commands import Zygote
from resumed import References, assert_same_run, recipe, whole

from zerofit.checkpoint.manifest import step_name, steps

pytestmark = pytest.mark.faults
NEVER = 10**12  # seconds: a year that no calendar has, or the last that the drive can say


@pytest.mark.parametrize("strategy", ["ddp", "zero2"])
def test_a_clock_that_jumps_by_days(strategy: str, zygote: Zygote, references: References, tmp_path: Path) -> None:
    run = tmp_path / "run"
    limits = ("--watchdog", 1, "--grace", 100)
    words = (recipe(tmp_path), f"strategy={strategy}", "--nproc", 2, f"run_dir={run}", *limits)
    with zygote.start("train", *words, cwd=tmp_path, clock=True) as command:
        command.await_((run / "checkpoints" / step_name(9)).exists)
        os.kill(command.pid, signal.SIGTERM)
        assert command.wait() == 4, command.said
    oldest, *_, newest = steps(run / "checkpoints").values()
    assert whole(run) == newest
    for checkpoint, moment in ((oldest, 0), (newest, NEVER)):
        for path in (checkpoint, *checkpoint.rglob("*")):
            os.utime(path, (moment, moment))
    assert whole(run) == newest
    for words in (("list", run), ("show", run), ("verify", run)):
        done = zygote.run("checkpoint", *words, cwd=tmp_path, clock=True)
        assert done.code == 0, done.said
    command = zygote.run("train", "--resume", run, *limits, cwd=tmp_path, clock=True)
    assert command.code == 0, command.said
    assert_same_run(run, references.get(strategy))
