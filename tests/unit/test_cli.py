"""The command line: words, exit codes, and what it does not import."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from zerofit import cli
from zerofit.config.errors import UserError
from zerofit.launch import evaluating, start


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What reaches the functions below; they return 7."""
    seen: list[tuple[Any, ...]] = []

    def record(*arguments: Any, **options: Any) -> int:
        seen.append((*arguments, options))
        return 7

    monkeypatch.setattr(start, "train", record)
    monkeypatch.setattr(evaluating, "evaluate", record)
    return seen


def test_words_are_a_recipe_and_overrides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cli.split_words(["digits", "train.seed=1", "a.b=c"]) == ("digits", ["train.seed=1", "a.b=c"])
    assert cli.split_words(["train.seed=1"]) == (None, ["train.seed=1"])
    assert cli.split_words([]) == (None, [])
    monkeypatch.chdir(tmp_path)
    Path("lr=1.yaml").touch()
    assert cli.split_words(["lr=1.yaml"]) == ("lr=1.yaml", [])


def test_train_and_eval_pass_their_arguments_and_exit_codes(calls: list[tuple[Any, ...]]) -> None:
    done = CliRunner().invoke(cli.app, ["train", "digits", "train.seed=1", "--nproc", "2"])
    assert done.exit_code == 7
    plain = {"nproc": None, "resume": None, "from_stage": None, "stage": None, "trust": False, "debug": False}
    plain |= {"auto_resume": 0}
    assert calls.pop() == ("digits", ["train.seed=1"], {**plain, "nproc": 2})
    done = CliRunner().invoke(cli.app, ["train", "digits", "--from-stage", "2"])
    assert calls.pop() == ("digits", [], {**plain, "from_stage": 2})
    done = CliRunner().invoke(cli.app, ["train", "--resume", "runs/a", "train.seed=1"])
    assert calls.pop() == (None, ["train.seed=1"], {**plain, "resume": Path("runs/a")})
    done = CliRunner().invoke(cli.app, ["eval", "runs/a", "--data", "images", "--checkpoint", "5"])
    assert done.exit_code == 7
    assert calls.pop() == ("runs/a", ["images"], {}, {"nproc": None, "step": 5, "debug": False})
    words = ["eval", "model", "--k", "8,2", "--top-p", "0.9", "--fields", "question=problem", "--against", "other"]
    assert CliRunner().invoke(cli.app, words).exit_code == 7
    given = {"k": (1, 2, 8), "top_p": 0.9, "fields": {"question": "problem"}, "against": Path("other")}
    assert calls.pop() == ("model", [], given, {"nproc": None, "step": None, "debug": False})


def test_users_errors_are_lines_without_a_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> int:
        raise UserError("one is wrong\ntwo as well")

    monkeypatch.setattr(start, "train", fail)
    done = CliRunner().invoke(cli.app, ["train", "digits"])
    assert (done.exit_code, done.stderr) == (2, "error: one is wrong\nerror: two as well\n")
    done = CliRunner().invoke(cli.app, ["train", "digits", "--debug"])
    assert done.exit_code == 2
    assert "Traceback" in done.stderr
    assert done.stderr.endswith("error: one is wrong\nerror: two as well\n")


def test_files_that_cannot_be_had_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(start, "train", lambda *_, **__: (tmp_path / "none").read_text())
    done = CliRunner().invoke(cli.app, ["train", "digits"])
    assert (done.exit_code, done.stderr) == (2, f"error: {tmp_path / 'none'}: No such file or directory\n")


def test_what_launchers_add_is_dropped() -> None:
    words = ["--local_rank=1", "train", "digits", "--local-rank", "0", "--local-rank=3", "--nproc", "2"]
    assert cli.without_local_rank(words, {"RANK": "1"}) == ["train", "digits", "--nproc", "2"]
    assert cli.without_local_rank(words, {}) == words


def test_train_needs_something_to_train() -> None:
    done = CliRunner().invoke(cli.app, ["train"])
    assert done.exit_code == 2
    assert "zerofit recipes" in done.stderr
    assert CliRunner().invoke(cli.app, ["train", "digits", "--nproc", "0"]).exit_code == 2


def test_schema_is_json() -> None:
    done = CliRunner().invoke(cli.app, ["schema"])
    assert done.exit_code == 0
    assert "recipe" in json.loads(done.stdout)["title"].lower()


def test_help_imports_nothing_heavy_and_planning_no_tensors() -> None:
    lines = [
        "import sys, zerofit.cli",
        "print('pydantic' in sys.modules)",
        "import zerofit.launch.start, zerofit.launch.evaluating",
        "print('torch' in sys.modules)",
    ]
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.split() == ["False", "False"]
