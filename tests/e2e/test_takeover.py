"""A run under another strategy and on another number of ranks: `--resume` there, and converted for there."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from cli_runs import environment, refused, steps, tiny, trained, zerofit
from safetensors.torch import load_file

from zerofit.checkpoint.manifest import read_manifest, verify
from zerofit.config.errors import UserError
from zerofit.launch.relocate import relocate
from zerofit.models.zero_states import zero_states


@pytest.fixture(scope="module")
def cwd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("takeover")
    trained(str(tiny(directory)), "strategy=zero2", "checkpoint.every_steps=3", "--nproc", "2", cwd=directory)
    return directory


@pytest.fixture(autouse=True)
def inside(cwd: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(cwd)
    for name in os.environ.keys() - environment().keys():
        monkeypatch.delenv(name)
    for name, value in environment().items():
        monkeypatch.setenv(name, value)


def contents(run: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(run.rglob("*")) if path.is_file()}


@pytest.mark.thorough
def test_there_and_back_and_on(cwd: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = Path("runs/tiny")
    before = contents(run)
    assert relocate(Path("runs/tiny@3"), "zero3", 1, None) == 0
    assert capsys.readouterr().out.splitlines()[-1] == (
        "runs/tiny@3, written by zero2 on 2 ranks, is now runs/tiny-zero3-x1 for zero3 on 1 rank; "
        "go on with: zerofit train --resume runs/tiny-zero3-x1"
    )
    there = Path("runs/tiny-zero3-x1")
    assert contents(run) == before
    assert [record["step"] for record in steps(there)] == [1, 2, 3]
    spec = json.loads((there / "run.json").read_text())
    assert spec["run_dir"] == str(there.absolute())
    assert (there / "deepspeed.json").exists()
    assert (there / "earlier/run-000003.json").read_bytes() == (run / "run.json").read_bytes()

    assert relocate(there, "zero2", 2, Path("back")) == 0
    first, back = run / "checkpoints/step-000003", Path("back/checkpoints/step-000003")
    assert verify(back) == []
    assert read_manifest(back).facts == read_manifest(first).facts
    states = [zero_states(one / "global_step3") for one in (first, back)]
    for name, weight in states[0].weights.items():
        assert torch.equal(weight(), states[1].weights[name]())
        for kind, moment in states[0].moments[name].items():
            assert torch.equal(moment(), states[1].moments[name][kind]())
    assert states[0].counts == states[1].counts
    weights = [load_file(one / "model.safetensors") for one in (first, back)]
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())

    done = zerofit("train", "--resume", "runs/tiny-zero3-x1", cwd=cwd)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    assert "taken over" not in done.stdout
    assert [one["loss"] for one in steps(there)] == pytest.approx([one["loss"] for one in steps(run)], rel=1e-6)


def test_a_failed_conversion_leaves_nothing(cwd: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    spec = json.loads(Path("runs/tiny/run.json").read_text())
    spec["recipe"]["data"]["limit"] = 10**6  # what the worker meets alone: the data are others now
    spec["data"]["train"] = 10**6
    run.mkdir()
    (run / "run.json").write_text(json.dumps(spec))
    os.symlink(Path("runs/tiny/checkpoints").absolute(), run / "checkpoints")
    with pytest.raises(UserError):
        relocate(run, "ddp", 1, tmp_path / "new")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]


@pytest.mark.parametrize(
    ("strategy", "world", "said"),
    [
        ("zero2", 2, "runs/tiny@3 was written by zero2 on 2 ranks already: there is nothing to do"),
        ("zeropp", 2, "--to zeropp: its quantisation exists as CUDA kernels alone"),
        ("zer3", 2, "did you mean zero3?"),
        ("zero3", 0, "--world 0: there is at least one rank"),
        ("zero3", 3, "train.global_batch 16 is not a multiple of micro_batch 8 x 3 ranks"),
        ("single", 2, "strategy single runs on 1 rank, not 2"),
    ],
)
def test_what_is_refused_before_anything_starts(strategy: str, world: int, said: str) -> None:
    with pytest.raises(UserError) as refused:
        relocate(Path("runs/tiny@3"), strategy, world, None)
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_an_output_that_is_there_is_refused(cwd: Path) -> None:
    with pytest.raises(UserError, match="runs/tiny exists: name a new directory to convert to, with --output"):
        relocate(Path("runs/tiny"), "ddp", 1, Path("runs/tiny"))
    with pytest.raises(UserError, match="which is only read"):
        relocate(Path("runs/tiny"), "ddp", 1, Path("runs/tiny/other"))


def test_a_directory_of_deepspeeds_files_alone(cwd: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = Path("runs/tiny/checkpoints/step-000003/global_step3")
    before = contents(source)
    assert relocate(source, "zero1", 1, Path("foreign")) == 0
    assert capsys.readouterr().out.splitlines()[-1] == (
        f"{source}, written by zero2 on 2 ranks, is now foreign for zero1 on 1 rank; "
        "go on with: engine.load_checkpoint('foreign')"
    )
    assert contents(source) == before
    assert Path("foreign/latest").read_text() == "global_step3"
    assert sorted(path.name for path in Path().iterdir() if path.name.startswith(".")) == []
    states = [zero_states(one) for one in (source, Path("foreign/global_step3"))]
    assert states[0].weights.keys() == states[1].weights.keys()
    assert all(torch.equal(read(), states[1].weights[name]()) for name, read in states[0].weights.items())
    with pytest.raises(UserError, match="there is nothing to do"):
        relocate(source, "zero2", 2, Path("same"))
    with pytest.raises(UserError, match="goes to zero1, zero2, zero3, single, ddp alone"):
        relocate(source, "fsdp2", 1, Path("same"))


def test_only_what_spreads_the_work_may_change(cwd: Path) -> None:
    before = (cwd / "runs/tiny/run.json").read_bytes()
    changed = zerofit("train", "--resume", "runs/tiny@3", "strategy=ddp", "optimizer.lr=1e-2", cwd=cwd)
    assert changed.returncode == 2
    assert changed.stderr.splitlines()[1:] == ["error: optimizer.lr: 0.001 -> 0.01"]
    impossible = zerofit("train", "--resume", "runs/tiny@3", "--nproc", "3", cwd=cwd)
    refused(impossible, "train.global_batch 16 is not a multiple of micro_batch 8 x 3 ranks")
    assert (cwd / "runs/tiny/run.json").read_bytes() == before


def test_a_run_goes_on_elsewhere_with_the_same_losses(cwd: Path) -> None:
    run = cwd / "runs" / "tiny"
    whole = [record["loss"] for record in steps(run)]
    done = zerofit("train", "--resume", "runs/tiny@3", "strategy=fsdp2", "--nproc", "1", cwd=cwd)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    assert "goes on from step 3: what zero2 on 2 ranks wrote is taken over by fsdp2 on 1 rank" in done.stdout
    assert [record["loss"] for record in steps(run)] == pytest.approx(whole, rel=1e-6)
    now, earlier = (json.loads((run / name).read_text()) for name in ("run.json", "earlier/run-000003.json"))
    assert [spec["recipe"]["strategy"]["name"] for spec in (now, earlier)] == ["fsdp2", "zero2"]
    assert not (run / "deepspeed.json").exists()
    facts = [json.loads((run / f"checkpoints/step-00000{step}/manifest.json").read_text())["facts"] for step in (3, 6)]
    assert [(one["strategy"], one["world_size"]) for one in facts] == [("zero2", 2), ("fsdp2", 1)]
