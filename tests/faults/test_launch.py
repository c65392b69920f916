"""Ranks that fail, are killed, do not listen, or lose their launcher. Real processes, no torch."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from zerofit.launch import local
from zerofit.launch.local import Outcome, run_ranks

RANK = """\
import fcntl, os, signal, subprocess, sys
from pathlib import Path

from zerofit.config.errors import UserError
from zerofit.launch import failure, lifeline

rank, size, logs = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]), Path(sys.argv[1])


def lock(name, kind):
    file = open(logs / name, "a")
    fcntl.flock(file, kind)
    return file


def await_death_of(other):  # the kernel lets go of a lock when its holder dies
    lock(f"alive-{other}", fcntl.LOCK_EX)


def sleep():
    signal.pause()


def body():
BODY


lifeline.watch()
held = lock(f"alive-{rank}", fcntl.LOCK_EX), lock("anyone", fcntl.LOCK_SH)
(logs / f"ready-{rank}").touch()
while len(list(logs.glob("ready-*"))) < size:
    pass
failure.guard(rank, logs, body)
"""

LAUNCHER = """\
import os, signal, sys
from pathlib import Path

from zerofit.launch import local
from zerofit.launch.local import run_ranks

local.ECHO = 0.0  # a second signal need not be waited with
signal.signal(signal.SIGINT, signal.default_int_handler)  # whatever this process inherited
signal.signal(signal.SIGTERM, signal.SIG_DFL)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
script, logs = sys.argv[1:]
outcome = run_ranks([sys.executable, script, logs], 2, Path(logs), os.environ)
(Path(logs) / "late").write_text(str(outcome.late))
sys.exit(outcome.code)
"""


def rank_script(directory: Path, body: str) -> Path:
    """A rank's program whose work is `body`."""
    path = directory / "rank.py"
    path.write_text(RANK.replace("BODY", "\n".join(f"    {line}" for line in body.splitlines())))
    return path


def run(directory: Path, body: str, ranks: int = 2) -> tuple[Outcome, Path]:
    """Run `body` on every rank, from this process."""
    logs = directory / "logs"
    logs.mkdir()
    command = [sys.executable, str(rank_script(directory, body)), str(logs)]
    outcome = run_ranks(command, ranks, logs, os.environ)
    wait_until(lambda: nobody_lives(logs))
    return outcome, logs


def nobody_lives(logs: Path) -> bool:
    """Whether no rank, nor a process that one has started, holds the common lock."""
    with (logs / "anyone").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "waited for 60 s"
        time.sleep(0.02)


def test_all_well(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    outcome, logs = run(tmp_path, r'print(f"\rstep 1\rstep 2 of rank {rank} in {size} é")', ranks=3)
    assert outcome == Outcome()
    assert outcome.code == 0
    assert capfd.readouterr().out == "\rstep 1\rstep 2 of rank 0 in 3 é\n"
    assert [path.name for path in sorted(logs.glob("rank-*"))] == ["rank-0.log", "rank-1.log", "rank-2.log"]
    assert "rank 2" in (logs / "rank-2.log").read_text()


def test_a_second_attempt_appends_its_log_and_forgets_the_first_failure(tmp_path: Path) -> None:
    _, logs = run(tmp_path, 'if rank == 1: raise ValueError("once")\nsleep()')
    for left in logs.glob("ready-*"):
        left.unlink()
    outcome = run_ranks([sys.executable, str(rank_script(tmp_path, "pass")), str(logs)], 2, logs, os.environ)
    assert outcome.code == 0
    assert "once" in (logs / "rank-1.log").read_text()
    assert not list(logs.glob("*.error.json"))


def test_the_rank_that_raised_first_is_named_not_its_peers(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    body = """\
if rank == 1:
    raise ValueError("boom")
await_death_of(1)
raise ConnectionError("peer closed the connection")"""
    outcome, logs = run(tmp_path, body, ranks=3)
    assert outcome.failure is not None
    assert (outcome.failure.rank, outcome.failure.message, outcome.code) == (1, "ValueError: boom", 1)
    assert outcome.failure.traceback.endswith("ValueError: boom\n")
    assert (logs / "rank-1.log").read_text().endswith("ValueError: boom\n")
    assert "Traceback" not in capfd.readouterr().out  # rank 0's, a mere victim


def test_on_a_full_drive_the_rank_that_had_room_to_say_why_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def is_full(logs: Path) -> bool:  # rank 0 is slower than the first look at the ranks
        (logs / "looked").touch()
        return True

    monkeypatch.setattr(local, "_is_full", is_full)
    body = """\
if rank == 1:
    os._exit(failure.USER)
while not (logs / "looked").exists():
    pass
print("error: 0 B are free", flush=True)
os._exit(failure.USER)"""
    outcome, _ = run(tmp_path, body)
    assert outcome.failure is not None
    assert (outcome.failure.rank, outcome.failure.message, outcome.code) == (0, "0 B are free", 2)


def test_a_users_error_that_no_rank_had_room_to_say_is_one_still(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "_is_full", lambda logs: True)
    outcome, logs = run(tmp_path, "os._exit(failure.USER)")
    assert outcome.failure is not None
    assert outcome.failure.message == f"ended with status 2; no space is left in {logs}"
    assert outcome.code == 2


def test_a_users_error_is_told_apart(tmp_path: Path) -> None:
    outcome, _ = run(tmp_path, 'if rank == 1: raise UserError("3.png is torn")\nawait_death_of(1)\nraise OSError')
    assert outcome.failure is not None
    assert (outcome.failure.user, outcome.failure.message, outcome.code) == (True, "3.png is torn", 2)


def test_a_killed_rank_is_named_before_peers_that_report_at_once(tmp_path: Path) -> None:
    body = """\
if rank == 1:
    print("last words", flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
await_death_of(1)
raise ConnectionError"""
    outcome, _ = run(tmp_path, body, ranks=3)
    assert outcome.failure is not None
    assert outcome.failure.rank == 1
    assert "SIGKILL" in outcome.failure.message
    assert "last words" in outcome.failure.traceback
    assert outcome.code == 1


def test_a_rank_that_crashes_in_a_library_tells_where(tmp_path: Path) -> None:
    body = """\
import faulthandler, threading
faulthandler.enable()
def idle():
    await_death_of(0)
def crash_here():
    os.kill(os.getpid(), signal.SIGSEGV)
if rank == 0:
    sleep()
threading.Thread(target=idle).start()
print("terminate called", flush=True)
crash_here()"""
    outcome, logs = run(tmp_path, body)
    assert outcome.failure is not None
    lines = outcome.failure.traceback.splitlines()
    assert lines[:2] == ["terminate called", "Fatal Python error: Segmentation fault"]
    assert lines[-1] == "killed by SIGSEGV"
    assert "in crash_here" in lines[3]
    assert "in idle" in (logs / "rank-1.log").read_text()
    assert "in idle" not in outcome.failure.traceback
    assert "Extension modules" not in outcome.failure.traceback


def test_a_killed_rank_is_not_taken_for_an_older_crash(tmp_path: Path) -> None:
    body = """\
print("Fatal Python error: Aborted\\nCurrent thread 0x1\\n\\nExtension modules: all (total: 1)\\nresumed\\nstep 8")
os.kill(os.getpid(), signal.SIGKILL)"""
    outcome, _ = run(tmp_path, body, ranks=1)
    assert outcome.failure is not None
    assert outcome.failure.traceback.splitlines()[-2:-1] == ["step 8"]


def test_a_deaf_rank_and_what_a_dead_one_left_running_are_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "GRACE", 0.5)
    body = """\
if rank == 0:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    (logs / "deaf").touch()
    while True:
        sleep()
# A loader worker, say: it holds the common lock as well.
child = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); signal.pause()"
loader = subprocess.Popen([sys.executable, "-c", child], pass_fds=[held[1].fileno()], stdout=subprocess.PIPE)
loader.stdout.readline()
while not (logs / "deaf").exists():
    pass
os._exit(3)"""
    outcome, _ = run(tmp_path, body)
    assert outcome.failure is not None
    assert (outcome.failure.rank, outcome.failure.message) == (1, "ended with status 3")


def start_launcher(directory: Path, body: str = "while True: sleep()") -> tuple[subprocess.Popen[bytes], Path]:
    """A launcher in a session of its own, whose ranks wait for ever, or do `body` and touch busy-RANK."""
    logs = directory / "logs"
    logs.mkdir()
    script = rank_script(directory, body)
    command = [sys.executable, "-c", LAUNCHER, str(script), str(logs)]
    launcher = subprocess.Popen(command, start_new_session=True)
    mark = "busy" if "busy" in body else "ready"
    wait_until(lambda: len(list(logs.glob(f"{mark}-*"))) == 2)
    return launcher, logs


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_to_the_launcher_ends_all_ranks(tmp_path: Path, number: signal.Signals) -> None:
    launcher, logs = start_launcher(tmp_path)
    launcher.send_signal(number)
    assert launcher.wait(timeout=60) == 128 + number
    assert nobody_lives(logs)


def test_ranks_do_not_outlive_a_launcher_that_is_killed(tmp_path: Path) -> None:
    launcher, logs = start_launcher(tmp_path)
    launcher.kill()
    launcher.wait(timeout=60)
    wait_until(lambda: nobody_lives(logs))


def test_a_rank_that_cannot_leave_a_record_ends_all_the_same(tmp_path: Path) -> None:
    body = 'failure.write = lambda *_: open("/dev/full", "w", buffering=1).write("\\n")\nraise ValueError("boom")'
    outcome, _ = run(tmp_path, body, ranks=1)
    assert outcome.failure is not None
    assert outcome.failure.message == "ended with status 1"
    assert "ValueError: boom" in outcome.failure.traceback


def test_records_are_whole(tmp_path: Path) -> None:
    _, logs = run(tmp_path, 'raise ValueError("é\\n" * 3)', ranks=1)
    record = json.loads((logs / "rank-0.error.json").read_text(encoding="utf-8"))
    assert set(record) == {"rank", "time", "user", "message", "traceback"}


BUSY = """\
signal.signal(signal.SIGUSR1, lambda *_: (logs / f"asked-{rank}").touch())
(logs / f"busy-{rank}").touch()
while True: sleep()"""
SAVES = BUSY.replace('(logs / f"asked-{rank}").touch()', "os._exit(4)")


def test_a_rank_that_was_signalled_itself_stops_all(tmp_path: Path) -> None:
    outcome, _ = run(tmp_path, "os._exit(4)")
    assert outcome == Outcome(interrupted=True)
    assert outcome.code == 4


def test_ranks_that_save_and_stop_end_the_run_with_code_4(tmp_path: Path) -> None:
    launcher, logs = start_launcher(tmp_path, SAVES)
    launcher.send_signal(signal.SIGUSR1)
    assert launcher.wait(timeout=60) == 4
    assert nobody_lives(logs)


def test_a_signal_that_finds_all_ranks_as_good_as_done_is_told(tmp_path: Path) -> None:
    launcher, logs = start_launcher(tmp_path, BUSY.replace('(logs / f"asked-{rank}").touch()', "os._exit(0)"))
    launcher.send_signal(signal.SIGUSR1)
    assert launcher.wait(timeout=60) == 0
    assert (logs / "late").read_text() == str(int(signal.SIGUSR1))
    assert nobody_lives(logs)


def test_a_second_signal_ends_ranks_that_are_saving(tmp_path: Path) -> None:
    launcher, logs = start_launcher(tmp_path, BUSY)
    launcher.send_signal(signal.SIGTERM)
    wait_until(lambda: len(list(logs.glob("asked-*"))) == 2)
    launcher.send_signal(signal.SIGTERM)
    assert launcher.wait(timeout=60) == 128 + signal.SIGTERM
    assert nobody_lives(logs)


def test_ranks_that_take_too_long_to_save_are_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZEROFIT_GRACE", "0.3")
    launcher, logs = start_launcher(tmp_path, BUSY)
    launcher.send_signal(signal.SIGINT)
    assert launcher.wait(timeout=60) == 128 + signal.SIGINT
    assert nobody_lives(logs)
