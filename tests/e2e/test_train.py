"""A whole run: the exact set of files, resume, evaluation."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from cli_runs import refused, result, steps, tiny, trained, zerofit, zerofit_process

from zerofit.checkpoint.manifest import verify


def files(run: Path) -> set[str]:
    return {str(path.relative_to(run)) for path in run.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six steps under zero2 on two ranks, evaluated and saved every three."""
    cwd = tmp_path_factory.mktemp("run")
    wanted = ("strategy=zero2", "checkpoint.every_steps=3", "evaluate.every_steps=3")
    return trained(str(tiny(cwd)), *wanted, "--nproc", "2", cwd=cwd, start=zerofit_process)


def test_the_run_directory_holds_exactly_what_it_should(run: Path) -> None:
    shard = "checkpoints/step-00000{0}/global_step{0}/"
    expected = {"run.json", "deepspeed.json", "metrics.jsonl", "result.json", "logs/rank-0.log", "logs/rank-1.log"}
    expected |= {"checkpoints/best.json", "report.html", "test.json", *(f"test/{number}.png" for number in range(16))}
    for step in (3, 6):
        directory = f"checkpoints/step-{step:06d}/"
        expected |= {directory + name for name in ("manifest.json", "model.safetensors", "trainer_state.json")}
        expected |= {directory + name for name in ("scheduler.pt", "rng_state_0.pth", "rng_state_1.pth", "latest")}
        expected |= {directory + "zero_to_fp32.py", directory + "zero_to_torch.py"}  # DeepSpeed's own converters
        expected.add(shard.format(step) + "mp_rank_00_model_states.pt")
        for rank in (0, 1):
            expected.add(shard.format(step) + f"zero_pp_rank_{rank}_mp_rank_00_optim_states.pt")
    assert files(run) == expected


def test_every_step_is_recorded_with_the_promised_names(run: Path) -> None:
    records = steps(run)
    assert [record["step"] for record in records] == [1, 2, 3, 4, 5, 6]
    for record in records:
        assert {"step", "epoch", "loss", "grad_norm", "lr", "samples_s"} <= set(record)
        assert record["grad_norm"] > 0
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    evaluations = [line for line in lines if "val_loss" in line]
    assert [line["step"] for line in evaluations] == [3, 6]
    assert {"val_top1", "val_top5", "val_duration_s", "epoch"} <= set(evaluations[0])
    assert evaluations[0]["duration_s"] >= evaluations[0]["val_duration_s"] > 0


def test_the_result_counts_every_test_sample_once(run: Path) -> None:
    body = result(run)
    assert body["exit"] == "finished"
    assert body["peak_alloc_gib"] > 0
    confusion = body["test"]["confusion"]
    assert sum(map(sum, confusion)) == body["test"]["samples"] == 360
    shown = json.loads((run / "test.json").read_text())
    assert shown["confusion"] == confusion
    assert sum(one["predicted"] != one["label"] for one in shown["samples"]) == 8
    assert all(confusion[one["label"]][one["predicted"]] > 0 for one in shown["samples"])
    right = sum(row[index] for index, row in enumerate(confusion))
    assert body["test"]["top1"] == pytest.approx(right / 360)


def test_evaluating_the_run_again_gives_the_same_figures(run: Path) -> None:
    done = zerofit("eval", "runs/tiny", "--nproc", "2", cwd=run.parents[1])
    assert done.returncode == 0, done.stderr
    found = [json.loads(path.read_text()) for path in (run / "evaluations").glob("*.json")]
    assert len(found) == 1
    assert found[0]["test"]["confusion"] == result(run)["test"]["confusion"]
    assert found[0]["test"]["loss"] == pytest.approx(result(run)["test"]["loss"], rel=1e-6)
    for path in (run / "evaluations").glob("*.json"):
        path.unlink()
    (run / "evaluations").rmdir()


def test_a_finished_run_is_not_resumed(run: Path) -> None:
    before = (run / "result.json").read_bytes()
    done = zerofit("train", "--resume", "runs/tiny", "--nproc", "2", cwd=run.parents[1])
    refused(done, "runs/tiny is finished", "zerofit eval runs/tiny")
    assert (run / "result.json").read_bytes() == before


def moved(run: Path, directory: Path) -> Path:
    """A copy of the run, which has forgotten its result."""
    copy = directory / "runs" / "tiny"
    shutil.copytree(run, copy)
    (copy / "result.json").unlink()
    return copy


def same_steps_and_losses(ours: Path, theirs: Path) -> None:
    """Every step is recorded once, and so is every validation."""
    assert [record["step"] for record in steps(ours)] == [1, 2, 3, 4, 5, 6]
    for one, other in zip(steps(ours), steps(theirs), strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-6)
    lines = [json.loads(line) for line in (ours / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "val_loss" in line] == [3, 6]


def test_an_interrupted_run_resumes_to_the_same_losses(run: Path, tmp_path: Path) -> None:
    cut = moved(run, tmp_path)
    # As a crash after step 4 would leave it, on a drive that has damaged the newest checkpoint.
    weights = cut / "checkpoints" / "step-000006" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1
    weights.write_bytes(content)
    kept = (cut / "metrics.jsonl").read_text().splitlines()[:5]
    (cut / "metrics.jsonl").write_text("\n".join(kept) + '\n{"step": 5, "lo')
    done = zerofit("train", "--resume", "runs/tiny", "--nproc", "2", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    fault = "model.safetensors has other contents than were written"
    assert f"checkpoint runs/tiny/checkpoints/step-000006 is damaged and left out: {fault}\n" in done.stderr
    same_steps_and_losses(cut, run)
    assert verify(weights.parent) == []  # written again


def test_a_run_goes_on_from_a_step_that_is_named(run: Path, tmp_path: Path) -> None:
    cut = moved(run, tmp_path)
    written = (cut / "checkpoints" / "step-000006" / "manifest.json").stat().st_mtime_ns
    done = zerofit("train", "--resume", "runs/tiny/checkpoints/step-000003/", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "from step 3; checkpoints that training has yet to pass are kept until then: 6\n" in done.stdout
    same_steps_and_losses(cut, run)
    assert (cut / "checkpoints" / "step-000006" / "manifest.json").stat().st_mtime_ns > written
    assert result(cut)["exit"] == "finished"
    assert files(cut) == files(run)


def test_a_changed_recipe_is_not_resumed(run: Path) -> None:
    recipe = tiny(run.parents[1])
    done = zerofit("train", str(recipe), "train.seed=7", "--resume", "runs/tiny", cwd=run.parents[1])
    assert done.returncode == 2
    assert "train.seed: 0 -> 7" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_run_directory_that_exists_is_not_overwritten(run: Path) -> None:
    before = files(run)
    done = zerofit("train", "tiny.yaml", f"run_dir={run}", cwd=run.parents[1])
    refused(done, str(run), "--resume")
    assert files(run) == before


def test_a_run_may_end_without_a_checkpoint_and_without_a_test(tmp_path: Path) -> None:
    wanted = ("checkpoint.at_end=false", "checkpoint.every_steps=4", "evaluate.at_end=false", "strategy=single")
    run = trained(str(tiny(tmp_path)), *wanted, cwd=tmp_path)
    assert [path.name for path in (run / "checkpoints").glob("step-*")] == ["step-000004"]
    body = result(run)
    assert body["exit"] == "finished"
    assert "test" not in body
    assert body["holds"].keys() == {"weights", "gradients", "optimizer", "rest"}
    assert sum(body["holds"].values()) == pytest.approx(body["peak_alloc_gib"], rel=1e-3)
    assert all(0 < record["optimizer_s"] < 60 for record in steps(run))
    shutil.rmtree(run / "checkpoints")
    refused(zerofit("eval", "runs/tiny", cwd=tmp_path), "runs/tiny has no complete checkpoint", "checkpoint.at_end")
    refused(zerofit("train", "--resume", "runs/tiny", cwd=tmp_path), "runs/tiny has no complete checkpoint")
