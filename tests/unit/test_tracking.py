"""Trackers that do what they should, and all that they can do to a run instead."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from plan_examples import CPU, FACTS, recipe

from zerofit.plan.build import make_plan
from zerofit.plan.spec import RunSpec
from zerofit.train.trackers import Curve, Line
from zerofit.train.tracking import BLOCKED, FILE, Feed, Tracking, identity, name_of

CHILD = Path(__file__).with_name("tracking_child.py")
RECORDS = [
    {"step": 1, "epoch": 0.1, "loss": 2.5, "grad_norm": None, "lr": 1e-3, "samples_s": 64.0, "mfu": None},
    {"step": 2, "epoch": 0.2, "loss": 2.0, "grad_norm": 0.5, "lr": 1e-3, "samples_s": 64.0, "mfu": 0.4},
    {"step": 2, "epoch": 0.2, "val_loss": 2.1, "val_top1": 0.2, "duration_s": 3.0},
    {"step": 3, "epoch": 0.3, "loss": 1.5, "grad_norm": 0.5, "lr": 1e-3, "samples_s": 64.0, "mfu": 0.4},
]


def spec_in(run_dir: Path, *trackers: str) -> RunSpec:
    run_dir.mkdir(exist_ok=True)
    asked = recipe(track={"project": "mine"})
    spec = make_plan(asked, facts=FACTS, hardware=CPU, ranks=1, run_dir=run_dir)
    track = asked.track.model_copy(update={"to": trackers})  # as it is planned where they are installed
    return spec.model_copy(update={"recipe": asked.model_copy(update={"track": track})})


class Kept:
    """Keeps what it gets; `at` one of its methods it does what it is told to."""

    def __init__(self, at: str = "", act: Callable[[], None] = lambda: None) -> None:
        self.at, self.act = at, act
        self.curve: Curve | None = None
        self.lines: list[Line] = []
        self.finished = False

    def start(self, curve: Curve) -> str | None:
        self._reach("start")
        self.curve = curve
        return "somewhere"

    def log(self, lines: Sequence[Line]) -> None:
        self._reach("log")
        self.lines += lines

    def finish(self) -> None:
        self._reach("finish")
        self.finished = True

    def _reach(self, place: str) -> None:
        if place == self.at:
            self.act()


def raising() -> None:
    raise ConnectionError("no route to host\nand much more")


def ending() -> None:
    raise SystemExit(3)


def fed(run_dir: Path, *feeds: Feed, patience: float = 60.0) -> list[str]:
    """Everything that is said while feeds get RECORDS."""
    said: list[str] = []
    tracking = Tracking(spec_in(run_dir), feeds, said.append)
    tracking.start(0)
    for record in RECORDS:
        tracking.log(record)
    tracking.end()
    tracking.wait(patience)
    return said


def test_a_tracker_gets_every_number_under_its_name_and_the_whole_run_as_config(tmp_path: Path) -> None:
    tracker = Kept()
    assert fed(tmp_path / "run", Feed("one", tracker)) == ["one: somewhere"]
    assert tracker.finished
    assert [line.step for line in tracker.lines] == [1, 2, 2, 3]
    assert tracker.lines[0].figures == {"epoch": 0.1, "loss": 2.5, "lr": 1e-3, "samples_s": 64.0}
    assert tracker.lines[2].figures == {"epoch": 0.2, "val_loss": 2.1, "val_top1": 0.2, "duration_s": 3.0}
    curve = tracker.curve
    assert curve is not None
    assert (curve.name, curve.project, curve.config["recipe"]["optimizer"]["lr"]) == ("run", "mine", 1e-3)
    assert curve.id == json.loads((tmp_path / "run" / FILE).read_text())["id"]


@pytest.mark.parametrize("at", ["start", "log", "finish"])
@pytest.mark.parametrize(("act", "reason"), [(raising, "ConnectionError: no route to host"), (ending, "SystemExit: 3")])
def test_one_that_raises_is_left_out_in_a_line_and_the_others_go_on(
    tmp_path: Path, at: str, act: Callable[[], None], reason: str
) -> None:
    other = Kept()
    said = fed(tmp_path / "run", Feed("bad", Kept(at, act)), Feed("good", other))
    assert said.count(f"bad: {reason}; it is left out from here on; metrics.jsonl has all") == 1
    assert len(said) == (2 if at == "start" else 3), said
    assert (len(other.lines), other.finished) == (len(RECORDS), True)


@pytest.mark.parametrize("at", ["start", "log"])
def test_one_that_does_not_answer_is_left_out_and_nothing_waits_for_it(tmp_path: Path, at: str) -> None:
    now, forever, stuck = [0.0], threading.Event(), threading.Event()

    def hang() -> None:
        stuck.set()
        forever.wait()

    said: list[str] = []
    feed = Feed("stuck", Kept(at, hang), clock=lambda: now[0])
    tracking = Tracking(spec_in(tmp_path / "run"), [feed], said.append)
    tracking.start(0)
    tracking.log(RECORDS[0])
    assert stuck.wait(60)
    now[0] = BLOCKED + 1
    tracking.log(RECORDS[1])
    tracking.log(RECORDS[2])
    tracking.end()
    tracking.wait(60.0)
    assert said[-1] == "stuck: it has not answered for 120 s; it is left out from here on; metrics.jsonl has all"
    assert len(said) == (1 if at == "start" else 2)
    forever.set()


def test_one_that_is_still_at_it_in_the_end_is_left(tmp_path: Path) -> None:
    forever = threading.Event()
    said = fed(tmp_path / "run", Feed("slow", Kept("finish", lambda: void(forever.wait()))), patience=1.0)
    assert said[1:] == ["slow: it has not finished within 1 s; metrics.jsonl has all"]
    forever.set()


def void(_: Any) -> None:
    pass


def test_lines_that_find_no_room_are_counted(tmp_path: Path) -> None:
    begun = threading.Event()
    tracker = Kept("start", lambda: void(begun.wait()))
    feed, said = Feed("slow", tracker, room=2), list[str]()
    tracking = Tracking(spec_in(tmp_path / "run"), [feed], said.append)
    tracking.start(0)
    for record in RECORDS:
        tracking.log(record)
    begun.set()
    tracking.end()
    tracking.wait(60.0)
    assert said == ["slow: somewhere", "slow: too slow, so 2 lines were left out; metrics.jsonl has all"]
    assert [line.step for line in tracker.lines] == [1, 2]


def test_the_id_stays_and_a_directory_that_cannot_be_written_has_one_all_the_same(tmp_path: Path) -> None:
    spec = spec_in(tmp_path / "run")
    assert identity(spec) == identity(spec)
    (tmp_path / "run" / FILE).write_text("{torn")
    assert identity(spec) == identity(spec)
    (tmp_path / "run" / FILE).unlink()
    (tmp_path / "run").rmdir()
    assert len(identity(spec)) == 32


def test_a_stage_has_its_jobs_name_before_its_own(tmp_path: Path) -> None:
    assert name_of(tmp_path / "01-a") == "01-a"
    (tmp_path / "job.json").touch()
    assert name_of(tmp_path / "01-a") == f"{tmp_path.name}-01-a"


def child(directory: Path, *names: str, step: int = 0, patience: str = "60", **environment: str) -> list[str]:
    """What is said where a process of its own feeds real trackers, from `step` on."""
    spec = spec_in(directory / "run", *names)
    (directory / "run.json").write_text(spec.model_dump_json())
    (directory / "records.json").write_text(json.dumps(RECORDS))
    command = [sys.executable, str(CHILD), str(directory), str(step), patience]
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("WANDB_", "MLFLOW_"))}
    env = {**kept, "HOME": str(directory), "TRACKIO_DIR": str(directory / "trackio"), **environment}
    done = subprocess.run(command, cwd=directory, env=env, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    said = done.stdout.splitlines()
    assert "trained" in said, done.stdout
    return [line for line in said if line != "trained"]


def database(directory: Path) -> list[tuple[str, dict[str, Any]]]:
    """(run's id, figures) of each line that trackio has."""
    connection = sqlite3.connect(directory / "trackio" / "mine.db")
    rows = connection.execute("select run_id, step, metrics from metrics order by id").fetchall()
    connection.close()
    return [(run, {"step": step, **json.loads(metrics)}) for run, step, metrics in rows]


def numbers(records: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in record.items() if value is not None} for record in records]


def test_trackio_has_the_lines_of_both_parts_of_a_resumed_run_once(tmp_path: Path) -> None:
    pytest.importorskip("trackio")
    assert child(tmp_path, "trackio") == ["trackio: zerofit watch run"]
    child(tmp_path, "trackio", step=1)  # steps 2 and 3 come again
    identity = json.loads((tmp_path / "run" / FILE).read_text())["id"]
    assert database(tmp_path) == [(identity, line) for line in numbers(RECORDS)]


def test_a_trackio_database_that_is_removed_or_cannot_be_made_stops_nothing(tmp_path: Path) -> None:
    pytest.importorskip("trackio")
    child(tmp_path, "trackio")
    (tmp_path / "trackio" / "mine.db").unlink()
    child(tmp_path, "trackio", step=2)
    assert [line["step"] for _, line in database(tmp_path)] == [3]
    (tmp_path / "file").touch()
    said = child(tmp_path, "trackio", TRACKIO_DIR=str(tmp_path / "file" / "trackio"))
    assert len(said) == 1
    assert said[0].startswith("trackio: NotADirectoryError: ")
    assert said[0].endswith("; it is left out from here on; metrics.jsonl has all")


def test_trackio_on_a_networks_drive_gets_files_that_its_dashboard_takes_in(tmp_path: Path) -> None:
    pytest.importorskip("trackio")
    child(tmp_path, "trackio", TRACKIO_STORAGE_MODE="jsonl")
    assert not (tmp_path / "trackio" / "mine.db").exists()
    take_in = "from trackio.fragments import import_inbox_dir; import_inbox_dir()"
    env = {**os.environ, "TRACKIO_DIR": str(tmp_path / "trackio")}
    subprocess.run([sys.executable, "-c", take_in], env=env, check=True, timeout=120)
    assert [line for _, line in database(tmp_path)] == numbers(RECORDS)


def test_tensorboard_has_the_same_names_and_forgets_what_is_trained_again(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    child(tmp_path, "tensorboard")
    child(tmp_path, "tensorboard", step=1)
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    assert set(events.Tags()["scalars"]) == {name for line in numbers(RECORDS) for name in line} - {"step"}
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [(1, 2.5), (2, 2.0), (3, 1.5)]
    assert b'"lr": 0.001' in events.Tensors("recipe/text_summary")[0].tensor_proto.string_val[0]


def test_wandb_without_a_key_records_offline_and_asks_nobody(tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    said = child(tmp_path, "wandb")
    assert said == ["wandb: no API key, so it records offline; to send it later: wandb sync run/wandb/offline-run-*"]
    assert len(list(tmp_path.glob("run/wandb/offline-run-*/*.wandb"))) == 1
    assert child(tmp_path, "wandb", WANDB_MODE="offline") == []
    assert len(list(tmp_path.glob("run/wandb/offline-run-*/*.wandb"))) == 2


def test_mlflow_has_one_run_with_the_same_names(tmp_path: Path) -> None:
    for name in ("mlflow", "sqlalchemy", "alembic"):
        pytest.importorskip(name)
    assert child(tmp_path, "mlflow") == []
    assert child(tmp_path, "mlflow", step=1) == []
    connection = sqlite3.connect(tmp_path / "mlflow.db")
    metrics = connection.execute("select key, step, value from metrics order by timestamp, step").fetchall()
    runs = connection.execute("select name, status from runs").fetchall()
    lr = connection.execute("select value from params where key = 'recipe.optimizer.lr'").fetchall()
    connection.close()
    assert runs == [("run", "FINISHED")]
    assert lr == [("0.001",)]
    assert {name for name, _, _ in metrics} == {name for line in numbers(RECORDS) for name in line} - {"step"}
    assert [(step, value) for name, step, value in metrics if name == "loss"] == [(1, 2.5), (2, 2.0), (3, 1.5)]


STAND_IN = """
import atexit, sys, threading, time
atexit.register({at_exit})
class Settings:
    def __init__(self, **fields): pass
class Run:
    url = "https://example.org/mine"
    def log(self, figures, step): {log}
    def finish(self): {finish}
def login(**words): return {login}
def init(**words): {init}; return Run()
"""
GOOD = {"at_exit": "int", "log": "pass", "finish": "pass", "login": "True", "init": "pass"}


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ({}, ["wandb: https://example.org/mine"]),
        ({"login": "1 / 0"}, ["wandb: ZeroDivisionError: division by zero; it is left out"]),
        ({"init": "sys.exit('no server')"}, ["wandb: SystemExit: no server; it is left out"]),
        (
            {"log": "raise OSError(28, 'No space left on device')"},
            ["https", "wandb: OSError: [Errno 28] No space left"],
        ),
        (
            {"finish": "threading.Event().wait()", "at_exit": "threading.Event().wait"},
            ["https", "wandb: it has not finished within 1 s; metrics.jsonl has all"],
        ),
    ],
    ids=["good", "login raises", "start exits", "log raises", "the end hangs"],
)
def test_a_library_may_do_as_it_likes(tmp_path: Path, bad: dict[str, str], said: list[str]) -> None:
    (tmp_path / "wandb.py").write_text(STAND_IN.format(**{**GOOD, **bad}))
    lines = child(tmp_path, "wandb", patience="1" if bad.get("finish") else "60", PYTHONPATH=path_with(tmp_path))
    assert len(lines) == len(said), lines
    assert all(part in line for part, line in zip(said, lines, strict=True)), lines


def path_with(directory: Path) -> str:
    return os.pathsep.join([str(directory), *filter(None, [os.environ.get("PYTHONPATH")])])
