"""What `zerofit watch` says of runs, as their directories stand, and how it follows them."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from plan_examples import CPU, FACTS, recipe
from typer.testing import CliRunner

from zerofit import cli
from zerofit.launch import rundir
from zerofit.plan.build import make_plan
from zerofit.plan.files import write_spec
from zerofit.plan.job import JOB_FILE, JobSpec, Stage
from zerofit.report.live import Tail, sparkline, watched
from zerofit.report.screen import text

ASKED = recipe(train={"epochs": None, "max_steps": 10, "micro_batch": 16, "global_batch": 32})
STEP = {"epoch": 0.5, "lr": 1e-3, "grad_norm": 0.5, "samples_s": 64.0, "mfu": 0.41, "data_wait_s": 0.05}
MACHINE = {"peak_alloc_gib": 30.0, "peak_reserved_gib": 33.3, "host_rss_gib": 5.0, "host_used_gib": 21.0}
CARD = {"gpu_utilisation": 0.97, "gpu_temperature_c": 61.0, "gpu_power_w": 412.4}


def made(directory: Path) -> Path:
    write_spec(make_plan(ASKED, facts=FACTS, hardware=CPU, ranks=2, run_dir=directory))
    return directory


def write(run: Path, *lines: dict[str, Any], end: str = "\n") -> None:
    with (run / "metrics.jsonl").open("a") as file:
        file.write("\n".join(json.dumps(line) for line in lines) + end)


def said(run: Path) -> dict[str, str]:
    """The rows of `zerofit watch RUN --once`."""
    done = CliRunner().invoke(cli.app, ["watch", str(run), "--once"])
    assert done.exit_code == 0, done.output
    rows = (line.split("  ", 1) for line in done.stdout.splitlines())
    return {name.strip(): value.strip() for name, value in rows}


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_run_that_trains(tmp_path: Path) -> None:
    run = made(tmp_path / "run")
    lock = rundir.claim(run)
    assert said(run)["state"] == "starting"
    write(run, *({"step": step, "loss": 3.0 - step / 10, **STEP, **MACHINE, **CARD} for step in range(1, 5)))
    write(run, {"step": 4, "epoch": 0.5, "val_loss": 2.7, "val_top1": 0.25})
    shown = said(run)
    os.close(lock)
    assert shown["state"].startswith("running; the last line is 0:00:0")
    del shown["state"]
    assert shown == {
        "run": "run",
        "step": "4/10 (40%), epoch 0.50",
        "loss": "2.6000  █▆▃▁",
        "learning rate": "0.001, gradient norm 0.5",
        "validation": "25.00% top-1, loss 2.7000 at step 4",
        "speed": "64.0 samples/s, MFU 41.0%, 10% of it waiting for data",
        "memory": "GiB: 30.0 allocated, 33.3 reserved, 5.0 in the process, 21.0 in use on the host",
        "GPU of rank 0": "97% busy, 61 °C, 412 W",
        "time left": "about 0:00:03",
    }


@pytest.mark.parametrize(
    ("result", "state"),
    [
        ({"exit": "finished"}, "finished"),
        ({"exit": "interrupted"}, "interrupted; go on with: zerofit train --resume run"),
        ({"exit": "failed", "rank": 1, "error": "OSError: x"}, "failed; rank 1: OSError: x; logs: run/logs"),
        (None, "ended; no process trains it any more, and none said why; go on with: zerofit train --resume run"),
    ],
)
def test_a_run_that_has_ended(tmp_path: Path, result: dict[str, Any] | None, state: str) -> None:
    run = made(tmp_path / "run")
    write(run, {"step": 1, "loss": 3.0})  # as a probe's head logs it
    if result is not None:
        (run / "result.json").write_text(json.dumps(result))
    assert said(run) == {"run": "run", "state": state, "step": "1/10 (10%)", "loss": "3.0000  ▁"}


def test_a_job_is_its_newest_stage(tmp_path: Path) -> None:
    job = tmp_path / "job"
    job.mkdir()
    stages = tuple(Stage(directory=name, recipe=ASKED) for name in ("01-a", "02-b"))
    (job / JOB_FILE).write_text(JobSpec(name="job", stages=stages).model_dump_json())
    done = CliRunner().invoke(cli.app, ["watch", str(job)])
    assert (done.exit_code, done.stderr) == (2, f"error: {job} is a job of which no stage has begun\n")
    (made(job / "01-a") / "result.json").write_text('{"exit": "finished"}')
    first = watched(job).poll()
    assert "job/01-a, stage 1 of 2" in text(first)
    assert not first.over
    (made(job / "02-b") / "result.json").write_text('{"exit": "finished"}')
    assert watched(job).poll().over


def test_the_tail_waits_for_whole_lines_and_begins_anew_with_a_resumed_run(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    tail = Tail(path)
    tail.poll()
    assert tail.losses == []
    write(tmp_path, {"step": 1, "loss": 3.0}, {"step": 2, "loss": 2.5}, end="")
    tail.poll()
    assert tail.losses == [3.0]
    write(tmp_path, end="\n{torn}\n")
    write(tmp_path, {"step": 3, "loss": 2.0})
    tail.poll()
    assert tail.losses == [3.0, 2.5, 2.0]
    fresh = tmp_path / "fresh"
    fresh.write_text('{"step": 1, "loss": 3.0}\n')
    fresh.replace(path)
    tail.poll()
    assert (tail.losses, tail.last["step"]) == ([3.0], 1)


@given(st.lists(st.floats(), max_size=200), st.integers(1, 50))
def test_a_sparkline_is_as_long_as_it_may_be(values: list[float], width: int) -> None:
    finite = [value for value in values if abs(value) < 1e100]
    assert len(sparkline(values, width)) == min(width, len(finite))


def terminal(run: Path) -> tuple[subprocess.Popen[bytes], int]:
    """`zerofit watch` in a terminal, which is read from and typed into at the descriptor."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "zerofit", "watch", str(run), "--terminal"]
    env = {**os.environ, "COLUMNS": "100", "TERM": "xterm"}
    watch = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=env, start_new_session=True)
    os.close(theirs)
    return watch, ours


def read_until(descriptor: int, wanted: str) -> str:
    shown = b""
    while wanted.encode() not in shown:
        try:
            part = os.read(descriptor, 4096)
        except OSError:  # the other end is closed
            break
        shown += part
    assert wanted in shown.decode(), shown.decode()
    return shown.decode()


def test_a_terminal_is_drawn_over_until_the_run_is_finished(tmp_path: Path) -> None:
    run = made(tmp_path / "run")
    lock = rundir.claim(run)
    watch, screen = terminal(run)
    read_until(screen, "starting")
    write(run, {"step": 5, "loss": 2.0, **STEP})
    read_until(screen, "5/10 (50%)")
    (run / "result.json").write_text('{"exit": "finished"}')
    read_until(screen, "finished")
    assert watch.wait(60) == 0
    os.close(lock)
    os.close(screen)


def test_ctrl_c_leaves_cleanly(tmp_path: Path) -> None:
    watch, screen = terminal(made(tmp_path / "run"))
    shown = read_until(screen, "ended")
    watch.send_signal(signal.SIGINT)
    assert watch.wait(60) == 0
    assert "Traceback" not in shown
    os.close(screen)


def test_the_dashboard_of_a_run_that_trackio_tracks_is_served_here_alone(tmp_path: Path) -> None:
    pytest.importorskip("trackio")
    run = made(tmp_path / "run")
    track = {"format": 1, "id": "1", "project": "mine", "to": ["trackio"], "trackio_dir": str(tmp_path / "trackio")}
    (run / "track.json").write_text(json.dumps(track))
    command = [sys.executable, "-m", "zerofit", "watch", str(run)]
    env = {name: value for name, value in os.environ.items() if name != "TRACKIO_DIR"}
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as watch:
        assert watch.stdout is not None
        line = watch.stdout.readline()
        assert line.startswith("trackio: http://127.0.0.1:"), line
        assert line.endswith("/?project=mine (Ctrl-C ends it; --terminal: a table here)\n")
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(line.split()[1], timeout=60) as page:
            assert page.status == 200
        watch.send_signal(signal.SIGINT)
        _, errors = watch.communicate(timeout=60)
    assert (watch.returncode, errors) == (0, "")
    assert said(run)["run"] == "run"  # --once is the table
