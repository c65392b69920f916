"""The task cad from the command line: a curriculum in stages, cut off in the middle and resumed; bad input."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from cli_runs import environment, refused, result, steps, zerofit
from shrink import omni_cad

CURRICULUM = """\
task: cad
model:
  kind: cad_mllm
  tokenizer: bytes
  shape:
    model_type: qwen3
    hidden_size: 32
    intermediate_size: 64
    num_hidden_layers: 2
    num_attention_heads: 2
    num_key_value_heads: 1
    head_dim: 16
    vocab_size: 272
    tie_word_embeddings: true
  points: {latents: 4, width: 16, depth: 1, heads: 2}
  vision:
    shape: {hidden_size: 16, num_hidden_layers: 1, num_attention_heads: 2, patch_size: 16}
    image_size: 32
data: {source: parts, parts: 40, test_parts: 6, points: 64, views: 2, views_at_once: [1, 2]}
train: {micro_batch: 4, global_batch: 16}
optimizer: {lr: 1e-2}
strategy: zero3
checkpoint: {every_steps: 3}
stages:
  - name: text
    data: {mix: {text: 1}}
    model: {trainable: [{pattern: '^(points|point_projector|vision|image_projector)\\.', freeze: true}, .]}
    train: {max_steps: 2}
  - name: all
    data: {mix: {text: 1, text+points: 1, text+points+image: 2}}
    model: {trainable: [{pattern: '^language\\.', lr_scale: 0.5}, .]}
    train: {max_steps: 12}
    evaluate: {every_steps: 6}
"""


def recipe(directory: Path, text: str = CURRICULUM) -> str:
    (directory / "cad.yaml").write_text(text)
    return "cad.yaml"


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both stages, uninterrupted, on two ranks."""
    cwd = tmp_path_factory.mktemp("job")
    kept = environment(ZEROFIT_CACHE=str(cwd / "cache"))
    done = zerofit("train", recipe(cwd), "--nproc", "2", cwd=cwd, env=kept)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    return cwd / "runs" / "cad"


def losses(run: Path) -> list[float]:
    return [record["loss"] for record in steps(run)]


def test_a_curriculum_shows_more_from_stage_to_stage(job: Path) -> None:
    text, everything = job / "01-text", job / "02-all"
    assert result(text)["test"]["inputs"].keys() == {"text"}
    test = result(everything)["test"]
    assert test["inputs"].keys() == {"text", "text+points", "text+points+image"}
    shares = {"text": 0.25, "text+points": 0.25, "text+points+image": 0.5}
    for figure in ("loss", "token_accuracy"):
        assert test[figure] == pytest.approx(sum(shares[name] * one[figure] for name, one in test["inputs"].items()))
    lines = [json.loads(line) for line in (everything / "metrics.jsonl").read_text().splitlines()]
    validated = next(line for line in lines if "val_loss" in line)
    assert {f"val_{figure}/{name}" for figure in ("loss", "token_accuracy") for name in shares} <= validated.keys()
    assert all(0 <= line["token_accuracy"] <= 1 and line["tokens_s"] > 0 for line in lines if "loss" in line)
    assert losses(everything)[-1] < losses(everything)[0]
    first, second = (json.loads((run / "run.json").read_text()) for run in (text, everything))
    assert first["data"]["clouds_in"] is None
    assert Path(second["data"]["clouds_in"]).is_dir()
    assert second["origin"] == str(text / "checkpoints" / "step-000002")
    page = (everything / "report.html").read_text()
    assert "Next token, by what is seen" in page
    assert "32 px, from 2 sides, 1 to 2 at once" in page
    assert second["data"]["images"] == 0.75


@pytest.mark.thorough
def test_one_rank_with_larger_micro_batches_takes_the_same_steps(job: Path, tmp_path: Path) -> None:
    kept = environment(ZEROFIT_CACHE=str(job.parents[1] / "cache"))
    asked = ("strategy=single", "train.micro_batch=8", "evaluate.at_end=false")
    done = zerofit("train", recipe(tmp_path), *asked, cwd=tmp_path, env=kept)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    for stage in ("01-text", "02-all"):
        assert losses(tmp_path / "runs" / "cad" / stage) == pytest.approx(losses(job / stage), rel=1e-6)


@pytest.mark.thorough
def test_a_stage_that_was_cut_off_goes_on_in_the_middle(job: Path, tmp_path: Path) -> None:
    copy = tmp_path / "runs" / "cad"
    shutil.copytree(job, copy, ignore=shutil.ignore_patterns("02-all"))
    recipe(tmp_path)
    kept = environment(ZEROFIT_CACHE=str(job.parents[1] / "cache"))
    command = [sys.executable, "-m", "zerofit", "train", "--resume", "runs/cad"]
    launcher = subprocess.Popen(
        command, cwd=tmp_path, env=kept, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    saved = copy / "02-all" / "checkpoints" / "step-000003" / "manifest.json"
    deadline = time.monotonic() + 300
    while not saved.exists():
        assert launcher.poll() is None
        assert time.monotonic() < deadline, "waited for 300 s"
        time.sleep(0.01)
    launcher.send_signal(signal.SIGTERM)
    _, said = launcher.communicate(timeout=100)
    assert launcher.returncode == 4, said
    taken = len(steps(copy / "02-all"))
    assert taken < 12
    shutil.rmtree(kept["ZEROFIT_CACHE"])  # what was made is made again, as it was
    done = zerofit("train", "--resume", "runs/cad", cwd=tmp_path, env=kept)
    assert done.returncode == 0, done.stderr[-3000:]
    assert losses(copy / "02-all") == pytest.approx(losses(job / "02-all"), rel=1e-6)
    tested = [result(one / "02-all")["test"]["inputs"]["text+points+image"] for one in (copy, job)]
    assert tested[0] == pytest.approx(tested[1], rel=1e-5)


def spoil(root: Path, how: str) -> None:
    """Break the sixth model of a directory in that way."""
    name = "00000005_00001"
    if how == "image":
        (root / "img").mkdir()
        (root / "img" / f"{name}.png").write_text("no image")
    elif how == "points":
        (root / "pcd").mkdir()
        np.save(root / "pcd" / f"{name}.npy", np.full((2048, 3), np.nan))
    elif how == "model":
        (root / "json" / "0000" / f"{name}.json").unlink()
    elif how == "splits":
        ids = [f"{number:08d}_00001" for number in range(40)]
        (root / "train_val_test_split.json").write_text(json.dumps({"train": ids, "test": [name]}))


@pytest.mark.parametrize(
    ("how", "mix", "words"),
    [
        ("points", "{points: 1}", ("00000005_00001", "2,048 of 2,048 points are not finite")),
        ("image", "{image: 1}", ("00000005_00001", "no readable image")),
        ("model", "{text: 1}", ("00000005_00001", "has a caption and no model")),
        ("splits", "{text: 1}", ("00000005_00001", "is in two splits")),
        ("", "{texts: 1}", ("data.mix", "texts", "text+points")),
        ("", "{image: 1}, views: 2, views_at_once: 3", ("data.views_at_once", "of models that have 2: set data.views")),
    ],
)
def test_bad_models_end_in_a_line_with_their_id(tmp_path: Path, how: str, mix: str, words: tuple[str, ...]) -> None:
    root = omni_cad(tmp_path / "Omni-CAD")
    spoil(root, how)
    single = CURRICULUM.partition("checkpoint:")[0].replace("train: {", "train: {max_steps: 1, ")
    data = f"data={{source: omni_cad, path: {root}, validation: 0.1, mix: {mix}, points: 64}}"
    kept = environment(ZEROFIT_CACHE=str(tmp_path / "cache"))
    refused(zerofit("plan", recipe(tmp_path, single), data, cwd=tmp_path, env=kept), *words)
    assert not (tmp_path / "runs").exists()
