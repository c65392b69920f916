"""Run directories: new ones, claimed ones, and results in them."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from zerofit.config.errors import UserError
from zerofit.launch import rundir


def test_a_new_run_takes_the_first_free_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    made = [rundir.make("vit", None)[0] for _ in range(3)]
    assert made == [tmp_path / "runs" / name for name in ("vit", "vit-2", "vit-3")]
    assert all(path.is_dir() for path in made)


def test_a_named_directory_must_be_new_or_empty(tmp_path: Path) -> None:
    named = tmp_path / "a" / "b"
    assert rundir.make("vit", named) == (named, (named, named.parent))
    assert rundir.make("vit", named) == (named, ())  # as an empty volume that is mounted
    (named / "run.json").touch()
    with pytest.raises(UserError, match=f"{named} exists.*--resume {named}"):
        rundir.make("vit", named)
    with pytest.raises(UserError, match="cannot be made"):
        rundir.make("vit", named / "run.json" / "below")


def test_two_launchers_cannot_have_one_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rundir, "WAIT", 0.1)
    first = rundir.claim(tmp_path)
    with pytest.raises(UserError, match="in use"):
        rundir.claim(tmp_path)
    os.close(first)
    os.close(rundir.claim(tmp_path))


def test_a_directory_that_is_no_run_is_the_users_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no run directory"):
        rundir.load(tmp_path)


def test_results_add_up(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    rundir.add_result(path, test={"top1": 0.5}, exit="finished")
    rundir.add_result(path, wall_s=1.5)
    assert json.loads(path.read_text()) == {"test": {"top1": 0.5}, "exit": "finished", "wall_s": 1.5}
    assert [one.name for one in tmp_path.iterdir()] == ["result.json"]
