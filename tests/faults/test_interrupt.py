"""Runs that are asked to stop, hang, or crash: they save, say where, and go on as if nothing had been."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

sys.path.append(str(Path(__file__).parents[1] / "e2e"))
from cli_runs import TINY, environment, result, steps, tiny, trained, zerofit, zerofit_process

STEPS = 80
LONG = TINY.replace("max_steps: 6", f"max_steps: {STEPS}") + "checkpoint: {every_steps: 10, keep: 100}\n"
HANGS = pytest.mark.skipif(sys.platform != "linux", reason="stops a process")
TORCHRUN = ("-m", "torch.distributed.run", "--nproc-per-node=2")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> list[float]:
    """Losses of a run that nothing happens to."""
    cwd = tmp_path_factory.mktemp("whole")
    return losses(trained(str(tiny(cwd, LONG)), "strategy=single", cwd=cwd))


def losses(run: Path) -> list[float]:
    return [record["loss"] for record in steps(run)]


@contextmanager
def started(cwd: Path, *arguments: str, before: tuple[str, ...] = ()) -> Iterator[subprocess.Popen[str]]:
    """`zerofit train ARGUMENTS`; is ended with all that it has started."""
    command = [sys.executable, *before, "-m", "zerofit", "train", *arguments]
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, cwd=cwd, env=environment(), stdout=pipe, stderr=pipe, text=True)
    try:
        yield process
    finally:
        with_children = [*psutil.Process(process.pid).children(recursive=True)] if process.poll() is None else []
        for one in (*with_children, process):
            one.kill()
        process.communicate()


def wait_until(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 200
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "waited for 200 s"
        time.sleep(0.01)


def await_step(run: Path, step: int, process: subprocess.Popen[str]) -> None:
    """Wait until a step has been recorded, and its line is whole."""
    metrics = run / "metrics.jsonl"
    wait_until(lambda: metrics.exists() and metrics.read_text().count("\n") >= step, process)


def ranks_of(process: subprocess.Popen[str]) -> list[int]:
    """Process ids of our launcher's ranks."""
    return [child.pid for child in psutil.Process(process.pid).children()]


def saved_at_the_last_step(run: Path) -> int:
    """The step at which the run has stopped."""
    step = steps(run)[-1]["step"]
    assert isinstance(step, int)
    assert (run / "checkpoints" / f"step-{step:06d}" / "manifest.json").is_file()
    assert result(run)["exit"] == "interrupted"
    return step


def test_killed_and_interrupted_runs_go_on_to_the_same_losses(whole: list[float], tmp_path: Path) -> None:
    run, options = tmp_path / "runs" / "tiny", ("strategy=zero2", "--nproc", "2", "--auto-resume", "1")
    with started(tmp_path, str(tiny(tmp_path, LONG)), *options) as launcher:
        wait_until(lambda: (run / "checkpoints" / "step-000010" / "manifest.json").exists(), launcher)
        before = ranks_of(launcher)
        os.kill(before[1], signal.SIGKILL)
        wait_until(lambda: len(ranks_of(launcher)) == 2 and not {*ranks_of(launcher)} & {*before}, launcher)
        await_step(run, 23, launcher)
        launcher.send_signal(signal.SIGTERM)
        _, said = launcher.communicate(timeout=100)
    assert "rank 1 failed" in said
    assert "(--auto-resume: 1 of 1)" in said
    assert launcher.returncode == 4, said
    step = saved_at_the_last_step(run)
    assert step < STEPS
    assert said.splitlines()[-1] == (
        f"interrupted; runs/tiny/checkpoints/step-{step:06d} is saved; go on with: zerofit train --resume runs/tiny"
    )
    done = zerofit("train", "--resume", "runs/tiny", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert [record["step"] for record in steps(run)] == list(range(1, STEPS + 1))
    assert losses(run) == pytest.approx(whole, rel=1e-6)


def test_a_signal_to_one_rank_of_torchrun_saves_and_stops_all(whole: list[float], tmp_path: Path) -> None:
    """torchrun ends the other ranks when it sees one end: all is saved by then."""
    run = tmp_path / "runs" / "tiny"
    with started(tmp_path, str(tiny(tmp_path, LONG)), before=(*TORCHRUN, "--standalone")) as launcher:
        await_step(run, 3, launcher)
        ranks = [one for one in psutil.Process(launcher.pid).children() if "zerofit" in one.cmdline()]
        ranks[1].send_signal(signal.SIGUSR1)
        said, errors = launcher.communicate(timeout=100)
    step = saved_at_the_last_step(run)
    assert step < STEPS
    assert losses(run) == pytest.approx(whole[:step], rel=1e-6)
    assert f"step-{step:06d} is saved; go on with: zerofit train --resume runs/tiny" in said
    assert "exitcode  : 4" in errors
    assert "exitcode  : -15" not in errors


@HANGS
def test_a_rank_that_hangs_ends_the_run_with_stacks_and_a_cause(tmp_path: Path) -> None:
    run = tmp_path / "runs" / "tiny"
    options = ("--nproc", "2", "--watchdog", "0.1", "train.max_steps=20000")
    with started(tmp_path, str(tiny(tmp_path, LONG)), *options) as launcher:
        await_step(run, 3, launcher)
        os.kill(ranks_of(launcher)[1], signal.SIGSTOP)
        _, said = launcher.communicate(timeout=100)
    assert launcher.returncode == 1, said
    cause = result(run)["error"]
    assert "rank 1 does not answer" in cause
    assert "rank 0 waits at: " in cause
    assert "step " in cause
    assert cause in said
    log = (run / "logs" / "rank-0.log").read_text()
    assert "watchdog: rank 0 hangs at: " in log
    assert log.count("most recent call first") > 2  # the main thread, the watchdog, ...
    assert "pulse.py" in log or "trainer.py" in log


@pytest.mark.thorough
def test_what_fails_twice_at_the_same_step_is_not_tried_again(tmp_path: Path) -> None:
    """No file may have more than 8 kB, so metrics.jsonl is full after some 40 steps, each time."""
    limit = ("prlimit", "--fsize=8192")
    options = ("--auto-resume", "5", "checkpoint.every_steps=null")
    done = zerofit_process("train", str(tiny(tmp_path, LONG)), "strategy=single", *options, cwd=tmp_path, before=limit)
    assert done.returncode == 1
    assert "File too large" in done.stderr
    assert done.stderr.count("goes on from its start: it has no checkpoint (--auto-resume: 1 of 5)") == 1
    assert "runs/tiny has failed twice after step" in done.stderr.splitlines()[-1]
    assert json.loads((tmp_path / "runs" / "tiny" / "result.json").read_text())["exit"] == "failed"
