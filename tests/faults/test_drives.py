"""A drive that is full, and one that cannot be written: the last checkpoint stays, a line says why, and the run goes on
once the drive can be written.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from commands import Command, Zygote, wait_until
from resumed import References, assert_same_checkpoint, assert_same_run, recipe, records, whole

from zerofit.checkpoint.manifest import step_name, step_of

pytestmark = pytest.mark.faults
BLOCK = 4096


def mount(*words: object) -> None:
    subprocess.run(["mount", *map(str, words)], check=True, capture_output=True)


@pytest.fixture
def drive(tmp_path: Path) -> Iterator[Path]:
    """A drive of 4 MiB."""
    directory = tmp_path / "drive"
    directory.mkdir()
    try:
        mount("-t", "tmpfs", "-o", "size=4m", "tmpfs", directory)
    except (subprocess.CalledProcessError, FileNotFoundError):
        pytest.skip("mount is not allowed here")
    yield directory
    while subprocess.run(["umount", "-R", str(directory)], capture_output=True, check=False).returncode:
        assert directory.is_mount()


def begun(zygote: Zygote, drive: Path, step: int, **checkpoint: int) -> tuple[Path, Command]:
    """A run on the drive that has a checkpoint of `step`."""
    run = drive / "run"
    words = ("train", recipe(drive.parent, **checkpoint), "strategy=ddp", "--nproc", 2, f"run_dir={run}")
    command = zygote.start(*words, cwd=drive.parent)
    command.await_((run / "checkpoints" / step_name(step)).exists)
    return run, command


def fill(drive: Path, leave: int) -> Path:
    """Take all of the drive but `leave` bytes."""
    ballast = drive / "ballast"
    with ballast.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(BLOCK))
        except OSError:
            file.truncate(max(0, file.tell() // BLOCK * BLOCK - leave))
    return ballast


def stopped_at_the_third(command: Command, run: Path, reference: Path, reason: str) -> None:
    """The run has ended well, after the third save that failed; its last checkpoint is whole."""
    line = command.refused()
    assert "; it is the third in a row, so the run stops. Mend the cause, then go on with: zerofit train" in line
    assert f"--resume {run}" in line
    said = [one for one in command.stdout.splitlines() if "was not saved" in one]
    assert len(said) == 2
    assert all(one.endswith("stays; training goes on") for one in said)
    assert reason in said[0]
    left = whole(run)
    assert left is not None
    assert f"the one of step {step_of(left)} stays" in line
    assert_same_checkpoint(left, reference)
    assert json.loads((run / "result.json").read_text())["exit"] == "failed"


def test_a_full_drive(zygote: Zygote, references: References, drive: Path) -> None:
    run, command = begun(zygote, drive, 3)
    ballast = fill(drive, leave=16 * BLOCK)  # for records: a checkpoint needs more
    with command:
        stopped_at_the_third(command, run, references.get("ddp"), " free in ")
    still = zygote.run("train", "--resume", run, cwd=drive)
    assert "third in a row" in still.refused()
    ballast.unlink()
    again = zygote.run("train", "--resume", run, cwd=drive)
    assert again.code == 0, again.said
    assert_same_run(run, references.get("ddp"))


def test_a_drive_without_a_byte_left(zygote: Zygote, references: References, drive: Path) -> None:
    """Not even what a failed rank has to say fits: the launcher says it."""
    run, command = begun(zygote, drive, 3)
    ballast = fill(drive, leave=0)
    with command:
        line = command.refused()
    assert "third in a row" in line
    assert "0 B are free" in line
    left = whole(run)
    assert left is not None
    assert_same_checkpoint(left, references.get("ddp"))
    ballast.unlink()
    again = zygote.run("train", "--resume", run, cwd=drive)
    assert again.code == 0, again.said
    assert_same_run(run, references.get("ddp"))


def test_a_drive_without_room_for_records(zygote: Zygote, references: References, drive: Path) -> None:
    run, command = begun(zygote, drive, 10, every_steps=10)
    ballast = fill(drive, leave=0)
    with command:
        command.wait()
    assert command.code == 1, command.said
    last = command.stderr.splitlines()[-1].lower()
    assert "no space left on device" in last or "no space is left" in last
    left = whole(run)
    assert left == run / "checkpoints" / step_name(10)
    ballast.unlink()
    again = zygote.run("train", "--resume", run, cwd=drive)
    assert again.code == 0, again.said
    assert records(run) == records(references.get("ddp"))


def test_a_directory_that_becomes_read_only(zygote: Zygote, references: References, drive: Path) -> None:
    run, command = begun(zygote, drive, 3)
    with command:
        read_only(run / "checkpoints", drive / "other")
        stopped_at_the_third(command, run, references.get("ddp"), "Read-only file system")
    still = zygote.run("train", "--resume", run, cwd=drive)
    assert "Read-only file system" in still.refused()
    subprocess.run(["umount", str(run / "checkpoints")], check=True)
    again = zygote.run("train", "--resume", run, cwd=drive)
    assert again.code == 0, again.said
    assert_same_run(run, references.get("ddp"))


def test_a_drive_that_is_read_only(zygote: Zygote, references: References, drive: Path) -> None:
    run, command = begun(zygote, drive, 3)
    with command:
        pass  # killed; its ranks end, and close their files
    remount = ["mount", "-o", "remount,ro", str(drive)]
    wait_until(lambda: subprocess.run(remount, capture_output=True, check=False).returncode == 0)
    assert "Read-only file system" in zygote.run("train", "--resume", run, cwd=drive.parent).refused()
    words = ("train", drive.parent / "small.yaml", f"run_dir={drive}/new/one")
    line = zygote.run(*words, cwd=drive.parent).refused()
    assert line == f"error: the run directory {drive}/new/one cannot be made: Read-only file system"
    mount("-o", "remount,rw", drive)
    again = zygote.run("train", "--resume", run, cwd=drive.parent)
    assert again.code == 0, again.said
    assert_same_run(run, references.get("ddp"))


def read_only(directory: Path, other: Path) -> None:
    """Put a view of `directory` in its place that cannot be written; files that are open can still be."""
    other.mkdir()
    mount("--bind", directory, other)
    mount("-o", "remount,bind,ro", other)
    mount("--bind", other, directory)
