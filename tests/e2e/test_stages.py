"""A recipe with stages: fine-tune, then probe; in one go, cut off and resumed, and a stage at a time."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from cli_runs import TINY, environment, refused, result, steps, zerofit

from zerofit.launch import stages
from zerofit.launch.course import find
from zerofit.launch.restarts import Restarts

STAGES = (
    TINY.replace("  max_steps: 6\n", "").replace("strategy: ddp", "strategy: zero2")
    + """\
checkpoint: {every_steps: 4}
stages:
  - name: tune
    train: {max_steps: 8}
    optimizer: {lr: 3e-3}
  - task: probe
    train: {max_steps: 16, epochs: null}
    probe: {preset: moco-v3}
"""
)


def recipe(directory: Path) -> str:
    """Write the recipe of two stages."""
    (directory / "two.yaml").write_text(STAGES.replace("name: tiny", "name: two"))
    return "two.yaml"


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both stages, uninterrupted, on two ranks; its output lies beside."""
    cwd = tmp_path_factory.mktemp("job")
    done = zerofit("train", recipe(cwd), "--nproc", "2", cwd=cwd)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    (cwd / "output.txt").write_text(done.stdout)
    return cwd / "runs" / "two"


def first_stage_alone(job: Path, directory: Path) -> Path:
    """A copy of the job as it was when its first stage had ended."""
    copy = directory / "runs" / "two"
    shutil.copytree(job, copy, ignore=shutil.ignore_patterns("02-probe"))
    recipe(directory)
    return copy


def contents(directory: Path) -> dict[str, tuple[int, bytes]]:
    """Each file's time and bytes."""
    files = (path for path in sorted(directory.rglob("*")) if path.is_file())
    return {str(path.relative_to(directory)): (path.stat().st_mtime_ns, path.read_bytes()) for path in files}


def losses(run: Path) -> list[float]:
    return [record["loss"] for record in steps(run)]


def test_each_stage_is_a_run_that_starts_from_the_one_before(job: Path) -> None:
    assert sorted(path.name for path in job.iterdir()) == ["01-tune", "02-probe", "job.json", "report.html"]
    said = json.loads((job / "job.json").read_text())
    assert [stage["directory"] for stage in said["stages"]] == ["01-tune", "02-probe"]
    assert [result(job / name)["exit"] for name in ("01-tune", "02-probe")] == ["finished", "finished"]
    probe = json.loads((job / "02-probe" / "run.json").read_text())
    assert probe["origin"] == str(job / "01-tune" / "checkpoints" / "step-000008")
    assert probe["recipe"]["optimizer"]["name"] == "sgd"
    log = (job / "02-probe" / "logs" / "rank-0.log").read_text()
    assert "weights from" in log


def test_the_end_of_a_job_sums_up_each_stage(job: Path) -> None:
    lines = (job.parents[1] / "output.txt").read_text().splitlines()[-4:]
    assert [line.split()[0] for line in lines[:2]] == ["runs/two/01-tune", "runs/two/02-probe"]
    assert all("% top-1" in line and "wall time" in line for line in lines[:2])
    assert lines[2].split() == ["page", "runs/two/report.html"]
    assert lines[3].split() == ["next", "zerofit", "eval", "runs/two/02-probe"]


def test_what_is_there_is_not_trained_again(job: Path) -> None:
    cwd, before = job.parents[1], contents(job)
    refused(
        zerofit("train", "--resume", "runs/two", cwd=cwd), "all 2 stages are done", "zerofit eval runs/two/02-probe"
    )
    again = zerofit("train", "two.yaml", "--from-stage", "2", cwd=cwd)
    refused(again, "runs/two/02-probe is finished", "name=")
    refused(zerofit("eval", "runs/two", cwd=cwd), "name one of them: runs/two/01-tune, runs/two/02-probe")
    changed = zerofit("train", "two.yaml", "stages.1.train.seed=1", "--resume", "runs/two", cwd=cwd)
    assert changed.returncode == 2
    assert changed.stderr.splitlines()[1:] == ["error: stages.1.train.seed: 0 -> 1"]
    assert contents(job) == before


@pytest.mark.thorough
def test_a_stage_starts_again_from_the_one_before(job: Path, tmp_path: Path) -> None:
    copy = first_stage_alone(job, tmp_path)
    before = contents(copy / "01-tune")
    done = zerofit("train", "two.yaml", "--from-stage", "2", "--nproc", "2", cwd=tmp_path)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    assert contents(copy / "01-tune") == before
    assert losses(copy / "02-probe") == losses(job / "02-probe")


def test_a_mistake_in_the_last_stage_shows_before_the_first_begins(tmp_path: Path) -> None:
    name = recipe(tmp_path)
    refused(zerofit("train", name, "stages.1.train.global_batch=15", cwd=tmp_path), "02-probe: ", "global_batch")
    refused(zerofit("train", name, "stages.1.init_from=away", cwd=tmp_path), "02-probe: init_from: away does not exist")
    refused(zerofit("train", name, "--from-stage", "2", cwd=tmp_path), "runs/two/01-tune does not exist")
    refused(zerofit("train", name, "--stage", "3", cwd=tmp_path), "--stage 3: two.yaml has stages 1 to 2")
    assert not (tmp_path / "runs").exists()


def test_a_stage_that_was_done_before_is_still_asked_for_its_answers(
    job: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first_stage_alone(job, tmp_path)
    asked, more = list[int](), list[bool]()
    monkeypatch.setattr(stages, "_answers", lambda _, number, *others: asked.append(number) or 0)
    monkeypatch.setattr(stages, "dispatch", lambda *_, **options: more.append(options["more"]) or 4)
    monkeypatch.setenv("ZEROFIT_DEVICE", "cpu")
    monkeypatch.chdir(tmp_path)
    course = find(None, (), resume=Path("runs/two"), from_stage=None, stage=None, nproc=2)
    assert course is not None
    assert stages.run(course, nproc=2, debug=False, restarts=Restarts(0)) == 4
    assert (asked, more) == ([1], [False]), "the last stage has not ended"


@pytest.mark.thorough
def test_an_interrupted_second_stage_resumes_and_the_first_is_left_alone(job: Path, tmp_path: Path) -> None:
    copy = first_stage_alone(job, tmp_path)
    before = contents(copy / "01-tune")
    command = [sys.executable, "-m", "zerofit", "train", "--resume", "runs/two"]
    launcher = subprocess.Popen(
        command, cwd=tmp_path, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    saved = copy / "02-probe" / "checkpoints" / "step-000004" / "manifest.json"
    deadline = time.monotonic() + 300
    while not saved.exists():
        assert launcher.poll() is None
        assert time.monotonic() < deadline, "waited for 300 s"
        time.sleep(0.01)
    launcher.send_signal(signal.SIGTERM)
    _, said = launcher.communicate(timeout=100)
    assert launcher.returncode == 4
    assert said.splitlines()[-1] == ("stage 2 of 2 was interrupted; go on with: zerofit train --resume runs/two")
    assert result(copy / "02-probe")["exit"] == "interrupted"
    assert len(steps(copy / "02-probe")) < 16
    done = zerofit("train", "--resume", "runs/two", cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "runs/two/01-tune: done before" in done.stdout
    assert contents(copy / "01-tune") == before
    assert losses(copy / "02-probe") == pytest.approx(losses(job / "02-probe"), rel=1e-6)


def test_under_an_outer_launcher_a_process_runs_the_stage_it_is_told(job: Path, tmp_path: Path) -> None:
    copy = first_stage_alone(job, tmp_path)
    world = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "18231"}
    refused(zerofit("train", "two.yaml", cwd=tmp_path, env=environment(**world)), "--stage 1, then --stage 2")
    assert not (copy / "02-probe").exists()
    done = zerofit("train", "two.yaml", "--stage", "2", cwd=tmp_path, env=environment(**world))
    assert done.returncode == 0, done.stderr[-3000:]
    assert losses(copy / "02-probe") == pytest.approx(losses(job / "02-probe"), rel=1e-6)


@pytest.mark.thorough
def test_a_probe_after_lora_starts_from_the_merged_weights(tmp_path: Path) -> None:
    small = ("strategy=single", "stages.0.model.lora.rank=2", "stages.1.model.lora=null", "train.max_steps=2")
    done = zerofit("train", recipe(tmp_path), *small, cwd=tmp_path)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    job = tmp_path / "runs" / "two"
    origin = json.loads((job / "02-probe" / "run.json").read_text())["origin"]
    assert origin == str(job / "01-tune" / "exported" / "step-000002")
    assert json.loads((Path(origin) / "export.json").read_text())["merged"]["rank"] == 2
