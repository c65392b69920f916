"""kill -9 at random moments, again and again: each resume goes on from the last checkpoint that was there, and the run
ends as the uninterrupted one, bit by bit.
"""

from __future__ import annotations

import os
import random
import signal
from pathlib import Path

import pytest
from commands import Command, Zygote, wait_until
from resumed import STEPS, References, assert_same_checkpoint, assert_same_run, recipe, whole

from zerofit.checkpoint.manifest import NAME, step_of, steps

STRATEGIES = ("ddp", "fsdp2", "zero2", "zero3")
LAST = STEPS - 6  # no kill is planned after this step: the run must not have ended before


@pytest.mark.parametrize(
    ("seed", "kills"),
    [(8, 4), *(pytest.param(seed, 20, marks=pytest.mark.faults) for seed in range(10))],
)
def test_killed_at_random_moments_a_run_ends_as_the_uninterrupted_one(
    seed: int, kills: int, zygote: Zygote, references: References, tmp_path: Path
) -> None:
    strategy, draw = STRATEGIES[seed % 4], random.Random(seed)
    print(f"seed {seed}: {strategy}")
    reference, run = references.get(strategy), tmp_path / "run"
    words: tuple[object, ...] = (recipe(tmp_path), f"strategy={strategy}", "--nproc", 2, f"run_dir={run}")
    moments = sorted(draw.choices(range(1, LAST), k=kills))
    alone = draw.sample([True, False] * (kills // 2), kills)
    for moment, one in zip(moments, alone, strict=True):
        with zygote.start("train", *words, cwd=tmp_path) as command:
            seen = await_moment(command, run, moment, draw)
            kill_one(command, draw) if one else kill_all(command, draw)
        left = whole(run)
        assert left is not None
        assert (step_of(left) or 0) >= seen
        assert_same_checkpoint(left, reference)
        words = ("--resume", run)
    command = zygote.run("train", *words, cwd=tmp_path)
    assert command.code == 0, command.said
    assert_same_run(run, reference)


def await_moment(command: Command, run: Path, step: int, draw: random.Random) -> int:
    """Wait until `step` is recorded, then for some changes in the run directory, then for some turns of a loop.

    Returns the newest step whose checkpoint was seen by then.
    """
    changes, turns, seen = draw.randrange(6), draw.randrange(200_000), newest_seen(run)
    first = seen  # what the run goes on from, and its records with it
    before: object = None
    command.await_(lambda: len(command.ranks) == 2)

    def reached() -> bool:
        nonlocal before, changes, seen
        now = look(run)
        done = now[0]
        assert done >= first
        seen = max(seen, newest_seen(run))
        if done < step or seen == 0:
            return False
        if now != before:
            before, changes = now, changes - 1
        return changes < 0

    command.await_(reached)
    for _ in range(turns):
        pass
    return seen


def look(run: Path) -> tuple[int, list[str]]:
    """What changes while a run goes on."""
    return recorded(run), sorted(path.name for path in run.glob("checkpoints/*"))


def recorded(run: Path) -> int:
    """Steps that have their record."""
    try:
        return sum(b'"loss"' in line for line in (run / "metrics.jsonl").read_bytes().splitlines())
    except FileNotFoundError:
        return 0


def newest_seen(run: Path) -> int:
    """The last step that has a checkpoint, as far as names say."""
    return max((step for step, path in steps(run / "checkpoints").items() if (path / NAME).exists()), default=0)


def kill_one(command: Command, draw: random.Random) -> None:
    """Any of the ranks: the launcher ends the other, and says what happened."""
    rank = draw.randrange(2)
    os.kill(command.ranks[rank], signal.SIGKILL)
    assert command.wait() == 1, command.said
    assert f"rank {rank} failed" in command.stderr
    assert "killed by SIGKILL" in command.stderr


def kill_all(command: Command, draw: random.Random) -> None:
    """Launcher and ranks, in any order; nobody is left to say anything."""
    processes = [command.pid, *command.ranks]
    draw.shuffle(processes)
    for process in processes:
        os.kill(process, signal.SIGKILL)
    wait_until(lambda: command.poll() is not None)
    assert command.code == -signal.SIGKILL
