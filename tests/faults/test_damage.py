"""Real checkpoints of which any file is damaged, cut short or gone, or one too many: it is named, and the one before
is taken.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import Zygote
from resumed import References, assert_same_run, cut_off

from zerofit.checkpoint.manifest import NAME, newest, step_name

rest = pytest.mark.faults
STRATEGIES = ["ddp", pytest.param("fsdp2", marks=rest), pytest.param("zero2", marks=rest)]
LAST = 7


def flip(path: Path) -> None:
    """One bit of one byte anywhere."""
    draw, data = random.Random(path.name), bytearray(path.read_bytes())
    data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    path.write_bytes(data)


def shorten(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def empty(path: Path) -> None:
    path.write_bytes(b"")


DAMAGES: list[Callable[[Path], None]] = [flip, shorten, empty, Path.unlink]


@pytest.mark.parametrize("damage", DAMAGES, ids=["flip", "shorten", "empty", "delete"])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_each_file_is_missed(
    strategy: str, damage: Callable[[Path], None], references: References, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    cut_off(references.get(strategy), run, LAST)
    checkpoints = run / "checkpoints"
    good, bad = checkpoints / step_name(LAST - 1), checkpoints / step_name(LAST)
    files = [path for path in sorted(bad.rglob("*")) if path.is_file()]
    assert len(files) >= 7  # weights, optimizer, schedule, a random state per rank, Trainer's state, manifest
    for path in files:
        kept = path.read_bytes()
        if damage is empty and not kept:
            continue
        damage(path)
        told: list[tuple[Path, list[str]]] = []
        assert newest(checkpoints, lambda *what, told=told: told.append(what)) == good, path
        assert [where for where, _ in told] == [bad]
        assert path.relative_to(bad).as_posix() in told[0][1][0] or path.name == NAME, told
        path.write_bytes(kept)
    assert newest(checkpoints) == bad
    shutil.copyfile(files[0], bad / "another.safetensors")
    assert newest(checkpoints, lambda *_: None) == good


@pytest.mark.faults
def test_a_run_goes_on_from_the_checkpoint_before_a_damaged_one(
    zygote: Zygote, references: References, tmp_path: Path
) -> None:
    reference, run = references.get("zero2"), tmp_path / "run"
    cut_off(reference, run, LAST)
    (shard,) = (run / "checkpoints" / step_name(LAST)).glob("*/*rank_1*_optim_states.pt")
    flip(shard)
    command = zygote.run("train", "--resume", run, cwd=tmp_path)
    assert command.code == 0, command.said
    (line,) = (line for line in (command.stdout + command.stderr).splitlines() if step_name(LAST) in line)
    assert "rank_1" in line
    assert_same_run(run, reference)
