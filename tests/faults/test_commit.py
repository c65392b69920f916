from __future__ import annotations

import errno
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from zerofit.checkpoint.commit import Best, commit, read_best, record_best, rotate, stage, staging, sweep
from zerofit.checkpoint.manifest import newest, read_manifest, step_name, steps, verify
from zerofit.config.errors import UserError

CHILD = Path(__file__).with_name("commit_child.py")
PAYLOADS = {b"one" * 10_000: "one", b"two" * 10_000: "two", b"two again" * 10_000: "two again"}


def write(checkpoints: Path, step: int, contents: bytes = b"weights") -> Path:
    directory = stage(checkpoints, step) / f"checkpoint-{step}"
    directory.mkdir()
    (directory / "model.safetensors").write_bytes(contents)
    return directory


def put(checkpoints: Path, step: int, contents: bytes = b"weights") -> Path:
    return commit(write(checkpoints, step, contents), checkpoints, step, {"strategy": "ddp"})


def names(checkpoints: Path) -> list[str]:
    return sorted(path.name for path in checkpoints.iterdir())


@pytest.mark.parametrize(("scene", "first", "last"), [("add", "one", "two"), ("replace", "two", "two again")])
def test_killed_at_any_moment_the_old_or_the_new_checkpoint_is_whole(
    scene: str, first: str, last: str, tmp_path: Path
) -> None:
    done = subprocess.run([sys.executable, CHILD, tmp_path, scene], check=True, capture_output=True, text=True)
    deaths = int(done.stdout)
    assert deaths >= 15
    seen = []
    for number in range(deaths):
        checkpoints = tmp_path / str(number) / "checkpoints"
        sweep(checkpoints)
        assert all(verify(path) == [] for path in steps(checkpoints).values())
        found = newest(checkpoints)
        assert found is not None
        seen.append(PAYLOADS[(found / "model.safetensors").read_bytes()])
        assert [name for name in names(checkpoints) if name.startswith(".") and not name.endswith(".tmp")] == []
        best = read_best(checkpoints)
        assert best is None or checkpoints / step_name(best.step) == found
        assert sweep(checkpoints) == []
    assert seen == sorted(seen, key=[first, last].index)  # the old one, up to a moment; then the new one
    assert set(seen) == {first, last}


def test_a_commit_moves_and_names_it_and_clears_the_staging_directory(tmp_path: Path) -> None:
    assert put(tmp_path, 500) == tmp_path / "step-000500"
    assert names(tmp_path) == ["step-000500"]
    assert read_manifest(tmp_path / "step-000500").facts == {"strategy": "ddp", "step": 500}
    directory = stage(tmp_path, 600)
    (directory / "model.safetensors").touch()
    assert commit(directory, tmp_path, 600, {}) == tmp_path / "step-000600"
    assert verify(tmp_path / "step-000600") == []


def test_staging_begins_empty_and_a_sweep_removes_what_a_crash_left(tmp_path: Path) -> None:
    put(tmp_path, 1)
    write(tmp_path, 2)
    assert list(stage(tmp_path, 2).iterdir()) == []
    assert sweep(tmp_path) == ["removed .staging-step-000002"]
    assert sweep(tmp_path) == sweep(tmp_path / "nowhere") == []
    assert names(tmp_path) == ["step-000001"]


def test_rotation_keeps_the_newest_and_the_best(tmp_path: Path) -> None:
    for step in (1, 2, 3, 4, 9):
        put(tmp_path, step)
    record_best(tmp_path, Best(step=1, value=0.75))
    assert rotate(tmp_path, keep=2, step=4) == [tmp_path / "step-000002"]
    assert names(tmp_path) == ["best.json", "step-000001", "step-000003", "step-000004", "step-000009"]
    record_best(tmp_path, Best(step=4, value=0.8))
    assert rotate(tmp_path, keep=1, step=4) == [tmp_path / "step-000001", tmp_path / "step-000003"]
    assert rotate(tmp_path, keep=1, step=4) == []
    assert read_best(tmp_path) == Best(step=4, value=0.8)
    (tmp_path / "best.json").write_text("{")
    with pytest.raises(UserError, match="best.json is damaged"):
        rotate(tmp_path, keep=1, step=9)


def test_on_a_full_disk_the_old_checkpoint_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, 1, b"old")
    put(tmp_path, 2, b"old")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    for step in (2, 3):
        written = write(tmp_path, step, b"new")
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", full)
            with pytest.raises(OSError, match="No space left"):
                commit(written, tmp_path, step, {})
        assert staging(tmp_path, step).exists()
    sweep(tmp_path)
    assert names(tmp_path) == ["step-000001", "step-000002"]
    newest_one = newest(tmp_path)
    assert newest_one == tmp_path / "step-000002"
    assert (newest_one / "model.safetensors").read_bytes() == b"old"


def test_a_manifest_that_does_not_fit_is_not_there(tmp_path: Path) -> None:
    """The kernel itself refuses the write halfway, as on a full disk or over a quota."""
    put(tmp_path, 1)
    written = write(tmp_path, 2)
    for number in range(20):
        (written / f"shard-{number}.pt").touch()
    script = (
        "import resource, sys; from pathlib import Path; from zerofit.checkpoint.commit import commit;"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, (512, {resource.RLIM_INFINITY}));"
        "commit(Path(sys.argv[1]), Path(sys.argv[2]), 2, {})"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, written, tmp_path], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "File too large" in done.stderr
    assert newest(tmp_path) == tmp_path / "step-000001"
    sweep(tmp_path)
    assert names(tmp_path) == ["step-000001"]
