"""Two commands in one run directory: the second is refused in a line, and the first does not notice."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from commands import Zygote, wait_until
from resumed import STEPS, References, assert_same_run, recipe

from zerofit.checkpoint.manifest import step_name

pytestmark = pytest.mark.faults


@contextmanager
def stopped(process: int) -> Iterator[None]:
    """It does nothing meanwhile."""
    os.kill(process, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(process, signal.SIGCONT)


def test_a_run_that_goes_on_is_refused_to_others(zygote: Zygote, references: References, tmp_path: Path) -> None:
    run, made = tmp_path / "run", recipe(tmp_path)
    words = ("train", made, "strategy=ddp", "--nproc", 2, f"run_dir={run}")
    with zygote.start(*words, cwd=tmp_path) as first:
        first.await_((run / "checkpoints" / step_name(2)).exists)
        with stopped(first.ranks[1]):  # so that it does not end meanwhile
            others = [
                zygote.start("train", "--resume", run, cwd=tmp_path),
                zygote.start("train", made, "strategy=zero2", "--resume", run, cwd=tmp_path),
                zygote.start("train", "--resume", f"{run}@1", cwd=tmp_path),
            ]
            for other in others:
                assert other.refused() == f"error: {run} is in use: another zerofit process is at work in it"
            again = zygote.run(*words, cwd=tmp_path)
            assert again.refused().startswith(f"error: {run} exists: name another run_dir, or go on with that run: ")
        assert first.wait() == 0, first.said
    assert_same_run(run, references.get("ddp"))


def test_ranks_that_outlive_their_launcher_keep_others_out(
    zygote: Zygote, references: References, tmp_path: Path
) -> None:
    """A rank that a drive holds, say, and that may write on before it ends."""
    run = tmp_path / "run"
    words = ("train", recipe(tmp_path), "strategy=ddp", "--nproc", 2, f"run_dir={run}")
    with zygote.start(*words, cwd=tmp_path) as first:
        first.await_((run / "checkpoints" / step_name(STEPS // 4)).exists)
        with stopped(first.ranks[1]):
            os.kill(first.pid, signal.SIGKILL)
            wait_until(lambda: first.poll() is not None)
            assert "in use" in zygote.run("train", "--resume", run, cwd=tmp_path).refused()
    command = zygote.run("train", "--resume", run, cwd=tmp_path)
    assert command.code == 0, command.said
    assert_same_run(run, references.get("ddp"))
