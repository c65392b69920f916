"""What is kept in the host's memory is given back, however its process ends."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from zerofit.checkpoint import memory

HOLD = """
from zerofit.checkpoint.memory import Room
room = Room()
(room.path / "shard").write_bytes(bytes(1000))
print(room.path, flush=True)
input()
"""


@pytest.fixture(autouse=True)
def drive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(memory, "DRIVE", tmp_path)
    return tmp_path


def test_what_a_killed_process_leaves_is_swept_and_what_a_living_one_holds_is_not(drive: Path) -> None:
    script = (
        f"from pathlib import Path\nfrom zerofit.checkpoint import memory\nmemory.DRIVE = Path({str(drive)!r})\n{HOLD}"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        path = Path(holder.stdout.readline().strip())
        assert memory.sweep() == []
        assert (path / "shard").stat().st_size == 1000
        holder.kill()
    own = memory.Room()
    assert memory.sweep() == [path]
    assert not path.exists()
    own.close()
    assert list(drive.iterdir()) == []


def test_a_checkpoint_is_moved_whole_and_leaves_no_copy(drive: Path, tmp_path: Path) -> None:
    source, target = drive / "memory", tmp_path / "there"
    (source / "global_step3").mkdir(parents=True)
    (source / "empty").mkdir()
    contents = {f"global_step3/{rank}.pt": bytes([rank]) * 70_000 * rank for rank in range(7)} | {"latest": b"3"}
    for name, content in contents.items():
        (source / name).write_bytes(content)
    memory.move(source, target)
    assert {path.relative_to(target).as_posix(): path.read_bytes() for path in target.rglob("*.*")} == {
        name: content for name, content in contents.items() if "." in name
    }
    assert (target / "latest").read_bytes() == b"3"
    assert (target / "empty").is_dir()
    assert not [path for path in source.rglob("*") if path.is_file()]


def test_memory_is_taken_where_it_is_left_twice_for_a_drive_in_memory(
    drive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = Path("/proc")
    assert memory.allows(1, elsewhere)
    assert not memory.allows(2**60, elsewhere)
    monkeypatch.setattr(memory, "_left", lambda: 1000)
    assert memory.allows(800, elsewhere)
    assert not memory.allows(801, elsewhere)
    assert memory.allows(400, drive)  # the copy, and what is written from it
    assert not memory.allows(401, drive)


def test_on_one_drive_a_checkpoint_is_renamed(drive: Path) -> None:
    source, target = drive / "room", drive / "there"
    source.mkdir()
    (source / "shard").write_bytes(b"3")
    file = (source / "shard").stat().st_ino
    memory.move(source, target)
    assert ((target / "shard").stat().st_ino, list(source.iterdir())) == (file, [])
