"""Probing on the command line: cached features found again, the gap, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cli_runs import TINY, refused, result, tiny, trained, zerofit
from safetensors.torch import load_file

CACHED = (
    TINY.replace("name: tiny\n", "name: tiny\ntask: probe\nprobe: {features: cached, cache: features}\n")
    .replace("  lr: 1e-3", "  {name: sgd, lr: 0.5, weight_decay: 0}")
    .replace("max_steps: 6", "epochs: 5")
)


@pytest.fixture(scope="module")
def cwd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("probe")


@pytest.fixture(scope="module")
def run(cwd: Path) -> Path:
    grid = ("probe.lr_scales=[0.01, 1.0]", "probe.batch_norms=[true, false]")
    return trained(str(tiny(cwd, CACHED)), *grid, "--nproc", "2", cwd=cwd)


def test_the_best_head_is_chosen_on_held_out_images(run: Path) -> None:
    body = result(run)
    heads = body["heads"]
    assert [(head["lr_scale"], head["batch_norm"]) for head in heads] == [
        *((0.01, True), (1.0, True), (0.01, False), (1.0, False))
    ]
    assert body["chosen"] == max(heads, key=lambda head: (head["top1"], -head["held_out_loss"]))
    assert body["chosen"]["lr_scale"] == 1.0
    assert body["test"]["top1"] > 0.5
    assert body["features"]["reused"] is False
    shown = json.loads((run / "test.json").read_text())
    assert shown["confusion"] == body["test"]["confusion"]
    assert len({one["index"] for one in shown["samples"]}) == 16
    assert "held-out top-1" in (run / "report.html").read_text()
    (path,) = (run / "checkpoints").glob("step-*/model.safetensors")
    assert not any(name.startswith("backbone.") for name in load_file(path))
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, body["steps"] + 1))


def test_its_checkpoint_is_evaluated_to_the_same_figures(run: Path) -> None:
    """Up to the bfloat16 that the features were kept in."""
    done = zerofit("eval", "runs/tiny", "--nproc", "1", cwd=run.parents[1])
    assert done.returncode == 0, done.stderr
    again = json.loads((run / "evaluations" / "1.json").read_text())["test"]
    assert again["loss"] == pytest.approx(result(run)["test"]["loss"], rel=2e-3)
    assert abs(again["top1"] - result(run)["test"]["top1"]) <= 2 / 360


def test_a_finished_probe_is_not_trained_again(run: Path, cwd: Path) -> None:
    """It took fewer steps than were planned: a tenth of the images was held out."""
    refused(zerofit("train", "--resume", "runs/tiny", cwd=cwd), "runs/tiny is finished", "zerofit eval runs/tiny")
    assert result(run)["exit"] == "finished"


def test_a_second_run_finds_the_features_and_other_weights_do_not(run: Path, cwd: Path) -> None:
    second = (
        trained("tiny.yaml", "run_dir=runs/second", "strategy=single", "model.trainable=[head]", cwd=cwd).parent
        / "second"
    )
    assert result(second)["features"]["reused"] is True
    assert result(second)["features"]["directory"] == result(run)["features"]["directory"]
    trained("tiny.yaml", "run_dir=runs/other", "train.seed=1", "strategy=single", cwd=cwd)
    assert result(cwd / "runs" / "other")["features"]["reused"] is False


def test_a_checkpoint_of_another_backbone_is_refused(run: Path, cwd: Path) -> None:
    checkpoint = next(path for path in (run / "checkpoints").glob("step-*"))
    moved = cwd / "runs" / "moved"
    moved.mkdir()
    spec = json.loads((run / "run.json").read_text())
    spec["recipe"]["train"]["seed"] = 5
    (moved / "run.json").write_text(json.dumps(spec))
    (moved / "checkpoints").mkdir()
    checkpoint.rename(moved / "checkpoints" / checkpoint.name)
    try:
        done = zerofit("eval", "runs/moved", "--nproc", "1", cwd=cwd)
    finally:
        (moved / "checkpoints" / checkpoint.name).rename(checkpoint)
    refused(done, "other frozen weights", "fresh weights of seed 0")


def test_a_cache_that_was_tampered_with_is_refused(run: Path, cwd: Path) -> None:
    meta = Path(result(run)["features"]["directory"]) / "meta.json"
    before = meta.read_text()
    fields = json.loads(before)
    fields["weights"] = "of another model"
    meta.write_text(json.dumps(fields))
    try:
        done = zerofit("train", "tiny.yaml", "run_dir=runs/tampered", "strategy=single", cwd=cwd)
    finally:
        meta.write_text(before)
    refused(done, str(meta.parent))


@pytest.mark.thorough
def test_the_gap_between_cached_and_online_is_stated(run: Path, cwd: Path) -> None:
    done = zerofit("probe", "tiny.yaml", "--gap", "train.epochs=1", "strategy=single", cwd=cwd)
    assert done.returncode == 0, done.stderr
    last = done.stdout.splitlines()[-4:]
    assert [line.split()[0] for line in last] == ["cached", "online", "difference", "run"]
    figures = [float(line.split()[1]) for line in last[:2]]
    said = last[2].split()
    assert said[1] == "none" or float(said[3]) == pytest.approx(abs(figures[0] - figures[1]), abs=0.011)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (("probe.views=2",), ("probe.views", "augment")),
        (("probe.features=online",), ("cache", "online")),
        (("probe.preset=mocov3",), ("mocov3", "moco-v3")),
        (("model.trainable=[patch_embed, head]",), ("cached", "patch_embed", "online")),
        (("model.trainable=[{pattern: ., freeze: true}]", "probe={}"), ("frozen", "nothing to train")),
        (("probe.held_out=0", "probe.lr_scales=[1, 2]"), ("held_out", "2 heads")),
        (("optimizer.betas=[0.5, 0.9]",), ("betas", "adamw", "sgd")),
        (("task=classify",), ("probe", "classify")),
    ],
)
def test_one_line_names_what_is_wrong(tmp_path: Path, overrides: tuple[str, ...], words: tuple[str, ...]) -> None:
    refused(zerofit("train", str(tiny(tmp_path, CACHED)), *overrides, "--nproc", "2", cwd=tmp_path), *words)
    assert not list(tmp_path.glob("runs/*"))
