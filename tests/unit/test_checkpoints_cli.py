"""Reading checkpoints: list, verify, show, and which one RUN@STEP is, on run directories written without training."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from plan_examples import CPU
from safetensors.torch import save_file
from tiny_models import QWEN3, tiny_spec
from typer.testing import CliRunner, Result

from zerofit import cli
from zerofit.checkpoint.commit import Best, commit, record_best, stage
from zerofit.config.errors import UserError
from zerofit.launch import start
from zerofit.launch.evaluation import chosen_checkpoint
from zerofit.launch.origin import resolve
from zerofit.plan.files import write_spec
from zerofit.plan.job import JOB_FILE, JobSpec, Stage

SHARD = "global_step/zero_pp_rank_0_mp_rank_00_optim_states.pt"


def put(run: Path, step: int) -> Path:
    """Commit a checkpoint as the store does."""
    directory = stage(run / "checkpoints", step) / f"checkpoint-{step}"
    (directory / "global_step").mkdir(parents=True)
    save_file(
        {"head.weight": torch.full((3, 4), float(step)), "head.bias": torch.zeros(3, dtype=torch.bfloat16)},
        directory / "model.safetensors",
    )
    (directory / SHARD).write_bytes(b"moments" * 100 + bytes([step]))
    return commit(directory, run / "checkpoints", step, {"strategy": "zero2", "world_size": 1})


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """runs/a, planned for four steps, with the checkpoints of 1, 2 and 3, of which 2 is the best."""
    monkeypatch.chdir(tmp_path)
    path = Path("runs/a")
    spec = tiny_spec({"kind": "patch_lm", "shape": QWEN3, "image_size": 8}, strategy={"name": "zero2"})
    write_spec(spec.model_copy(update={"run_dir": path.absolute()}))
    for step in (1, 2, 3):
        put(path, step)
    record_best(path / "checkpoints", Best(step=2, value=0.8125))
    return path


def resumed(asked: str) -> Path:
    """The checkpoint that --resume of this goes on from, of a run that could be started now."""
    launch = start.go_on(Path(asked), None, (), CPU, None)
    assert launch.lock is not None
    os.close(launch.lock)
    assert launch.arguments[1] == "--resume"
    return Path(launch.arguments[2])


def call(*words: str) -> Result:
    return CliRunner().invoke(cli.app, ["checkpoint", *words])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


DAMAGE = [
    pytest.param(flip, "model.safetensors", "has other contents than were written", id="flipped byte"),
    pytest.param(truncate, SHARD, "has 700 bytes, not 701", id="truncated file"),
    pytest.param(Path.unlink, SHARD, "is missing", id="deleted shard"),
]


def test_list_says_of_each_what_it_is(run: Path) -> None:
    truncate(run / "checkpoints/step-000003" / SHARD)
    stage(run / "checkpoints", 4)
    done = call("list", "runs/a/")
    assert done.exit_code == 0, done.output
    lines = [line.split() for line in done.stdout.splitlines()]
    assert lines[0] == ["step", "GiB", "strategy", "ranks", "state"]
    assert [[line[0], *line[2:]] for line in lines[1:5]] == [
        ["1", "zero2", "1", "complete"],
        ["2", "zero2", "1", "complete", "newest,", "best", "top1", "0.8125"],
        ["3", "zero2", "1", "damaged"],
        ["4", "?", "?", "incomplete"],
    ]
    assert 0 < float(lines[1][1]) < 1e-5
    (run / "checkpoints/best.json").write_text("{")
    assert "best.json is damaged" in call("list", "runs/a").stdout


@pytest.mark.parametrize(("damage", "name", "fault"), DAMAGE)
def test_verify_names_every_fault_with_its_file(
    run: Path, damage: Callable[[Path], None], name: str, fault: str
) -> None:
    done = call("verify", "runs/a")
    assert (done.exit_code, done.stderr) == (0, "")
    assert [line.split()[:2] for line in done.stdout.splitlines()] == [
        [f"step-00000{step}", "whole:"] for step in (1, 2, 3)
    ]
    damage(run / "checkpoints/step-000002" / name)
    done = call("verify", "runs/a")
    assert (done.exit_code, done.stderr) == (2, "1 of 3 damaged\n")
    assert done.stdout.splitlines()[1] == f"step-000002  {name} {fault}"
    assert call("verify", "runs/a@3").exit_code == 0
    assert call("verify", "runs/a/checkpoints/step-000002/").exit_code == 2
    shutil.copytree(run / "checkpoints/step-000002", "elsewhere")
    done = call("verify", "elsewhere")
    assert (done.exit_code, done.stdout) == (2, f"elsewhere  {name} {fault}\n")


def test_show_reads_one_checkpoint_without_its_tensors(run: Path) -> None:
    def said(asked: str) -> dict[str, str]:
        done = call("show", asked)
        assert done.exit_code == 0, done.output
        return dict(line.strip().split("  ", 1) for line in done.stdout.splitlines() if "  " in line.strip())

    lines = {name: value.strip() for name, value in said("runs/a@2").items()}
    assert (lines["step"], lines["strategy"], lines["ZeRO stage"], lines["world size"]) == ("2 of 4", "zero2", "2", "1")
    assert lines["model.safetensors"].endswith("2 tensors, 15 parameters: 3 BF16, 12 F32")
    assert lines[SHARD] == "701 B"
    assert (lines["optimizer"], lines["best"]) == ("adamw, peak lr 0.001", "top1 0.8125")
    assert lines["state"].startswith("complete")
    assert lines["next"] == "zerofit train --resume runs/a@2"
    assert said("runs/a")["next"].strip() == "zerofit train --resume runs/a"
    put(run, 4)
    assert said("runs/a")["next"].strip() == "zerofit eval runs/a --checkpoint 4"
    shutil.copytree(run / "checkpoints/step-000002", "copy")
    (Path("copy") / "model.safetensors").write_bytes(b"\xff" * 8)
    lines = {name: value.strip() for name, value in said("copy").items()}
    assert lines["step"] == "2"
    assert lines["state"].startswith("damaged")
    assert "its header would have 18446744073709551615 bytes" in lines["model.safetensors"]
    assert lines["next"] == "zerofit train RECIPE init_from=copy"


def test_what_is_no_checkpoint_is_refused_in_one_line(run: Path) -> None:
    for words, said in {
        ("show", "runs/a@7"): "runs/a has no checkpoint of step 7 (there are: 1, 2, 3)",
        ("verify", "runs/a/checkpoints/step-000009"): "no checkpoint of step 9",
        ("verify", "runs/a@two"): "a whole number, not 'two': runs/a@500",
        ("list", "runs/a@2"): "zerofit checkpoint show runs/a@2",
        ("list", "runs"): "no run directory",
        ("verify", "nowhere"): "no run directory",
        ("show", "nowhere@3"): "no run directory",
    }.items():
        done = call(*words)
        assert done.exit_code == 2, words
        assert said in done.stderr, done.stderr
        assert done.stderr.count("\n") == 1
    shutil.rmtree(run / "checkpoints")
    assert "runs/a has no checkpoint yet" in call("list", "runs/a").stderr


def test_a_job_names_its_runs(run: Path) -> None:
    job = Path("runs/job")
    shutil.copytree(run, job / "01-tune")
    recipe = tiny_spec({"kind": "patch_lm", "shape": QWEN3, "image_size": 8}).recipe
    spec = JobSpec(name="job", stages=(Stage(directory="01-tune", recipe=recipe),))
    (job / JOB_FILE).write_text(spec.model_dump_json())
    for words in (("list", "runs/job"), ("verify", "runs/job"), ("show", "runs/job@2")):
        done = call(*words)
        assert done.exit_code == 2
        assert "runs/job is a job of stages, a run each: name one of them: runs/job/01-tune" in done.stderr
    with pytest.raises(UserError, match=r"name one of them: runs/job/01-tune"):
        start.go_on(Path("runs/job@2"), None, (), CPU, None)


@pytest.mark.parametrize(
    "asked",
    ["runs/a@2", "runs/a/@000002", "runs/a/checkpoints/step-000002/", "runs/../runs/a/checkpoints/step-000002"],
)
def test_resume_takes_the_checkpoint_that_is_named(run: Path, asked: str, capsys: pytest.CaptureFixture[str]) -> None:
    (run / "result.json").write_text('{"exit": "finished"}')
    assert resumed(asked).samefile(run / "checkpoints/step-000002")
    assert sorted(path.name for path in (run / "checkpoints").glob("step-*"))[-1] == "step-000003"
    assert capsys.readouterr().out == "from step 2; checkpoints that training has yet to pass are kept until then: 3\n"


def test_resume_from_inside_of_a_run(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(run / "checkpoints")
    assert resumed("step-000001").name == "step-000001"


@pytest.mark.parametrize(("damage", "name", "fault"), DAMAGE)
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(
    run: Path,
    damage: Callable[[Path], None],
    name: str,
    fault: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    damage(run / "checkpoints/step-000003" / name)
    with pytest.raises(UserError) as caught:
        start.go_on(Path("runs/a@3"), None, (), CPU, None)
    assert str(caught.value) == (
        f"--resume runs/a@3: that checkpoint is damaged: {name} {fault}; "
        "the newest whole one before it is --resume runs/a@2"
    )
    with pytest.raises(UserError, match=r"the newest whole one before it is init_from: runs/a@2"):
        resolve("runs/a@3")
    assert capsys.readouterr().err == ""
    assert resumed("runs/a").name == "step-000002"
    named = f"checkpoint runs/a/checkpoints/step-000003 is damaged and left out: {name} {fault}\n"
    assert capsys.readouterr().err == named
    assert chosen_checkpoint(run, None).name == resolve("runs/a").name == "step-000002"
    assert capsys.readouterr().err == 2 * named


def test_a_step_that_is_not_there_is_refused_with_those_that_are(run: Path) -> None:
    (run / "checkpoints/step-000001/manifest.json").unlink()
    for asked in ("runs/a@1", "runs/a@5", "runs/a/checkpoints/step-000005"):
        with pytest.raises(UserError, match=r"runs/a has no complete checkpoint of that step \(there are: 2, 3\)"):
            start.go_on(Path(asked), None, (), CPU, None)
    flip(run / "checkpoints/step-000002" / SHARD)
    with pytest.raises(UserError, match=r"--checkpoint 2: .* is damaged: .*; no earlier one is whole"):
        chosen_checkpoint(run, 2)


def test_init_from_takes_a_step(run: Path) -> None:
    assert resolve("runs/a@2") == run.absolute() / "checkpoints/step-000002"
    with pytest.raises(UserError, match=r"init_from: runs/a@9: .*there are: 1, 2, 3"):
        resolve("runs/a@9")
    with pytest.raises(UserError, match=r"init_from: runs@9 does not exist"):
        resolve("runs@9")


def test_a_directory_with_that_very_name_is_itself(run: Path) -> None:
    shutil.copytree(run, "runs/a@2")
    assert resumed("runs/a@2") == Path("runs/a@2/checkpoints/step-000003").absolute()
    assert resumed("runs/a@2@1") == Path("runs/a@2/checkpoints/step-000001").absolute()
