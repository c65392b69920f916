"""What a run on CAD models is worth, and one CAD model out of it, from the command line."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from cli_runs import environment, refused, zerofit
from PIL import Image
from shrink import omni_cad

pytestmark = pytest.mark.thorough

BLOCKS = """\
name: blocks
task: cad
model:
  kind: cad_mllm
  tokenizer: parts
  shape:
    model_type: qwen3
    hidden_size: 32
    intermediate_size: 64
    num_hidden_layers: 2
    num_attention_heads: 2
    num_key_value_heads: 1
    head_dim: 16
    vocab_size: 640
    max_position_embeddings: 128
  points: {latents: 4, width: 16, depth: 1, heads: 2}
  vision:
    shape: {hidden_size: 16, num_hidden_layers: 1, num_attention_heads: 2, patch_size: 16}
    image_size: 32
data:
  {source: omni_cad, path: blocks, points: 64, views: 4, views_at_once: [1, 4], mix: {text: 1, text+points+image: 1}}
train: {max_steps: 80, micro_batch: 8, global_batch: 16}
optimizer: {lr: 1e-2}
strategy: zero3
evaluate: {shapes: {limit: 6, pictures: 2}}
"""
TEST = 10
MIXES = ["text", "text+points+image", "none"]
WORDS = ("eval", "runs/blocks", "--temperature", "1", "--seed", "3", "--pictures", "0")


def split(directory: Path) -> None:
    """Ten of the forty blocks are for testing."""
    ids = [f"{number:08d}_00001" for number in range(40)]
    parts = {"train": [one for one in ids if one not in ids[::4]], "test": ids[::4]}
    (directory / "train_val_test_split.json").write_text(json.dumps(parts))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a run of two ranks that writes blocks, and its evaluation."""
    cwd = tmp_path_factory.mktemp("blocks")
    split(omni_cad(cwd / "blocks"))
    (cwd / "blocks.yaml").write_text(BLOCKS)
    done = command(cwd, "train", "blocks.yaml", "--nproc", "2")
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    (cwd / "said").write_text(done.stdout)
    return cwd


def command(cwd: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return zerofit(*words, cwd=cwd, env=environment(ZEROFIT_CACHE=str(cwd / "cache")))


def found(directory: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """evaluation.json, and the rows."""
    result = json.loads((directory / "evaluation.json").read_text())
    return result, pq.read_table(directory / "shapes.parquet").to_pylist()


def test_a_stage_ends_with_what_its_shapes_are_worth(place: Path) -> None:
    result, rows = found(place / "runs" / "blocks" / "evaluations" / "1")
    assert list(result["figures"]) == MIXES
    assert [row["mix"] for row in rows] == [mix for mix in MIXES for _ in range(6)]
    assert result["constrained"] is False
    for mix, figures in result["figures"].items():
        those = [row for row in rows if row["mix"] == mix]
        assert figures["shapes"] == 6
        assert figures["valid"]["value"] == sum(row["valid"] for row in those) / 6
        shares = [row["command_accuracy"] or 0.0 for row in those]
        assert figures["command_accuracy"]["value"] == pytest.approx(np.mean(shares))
        known = [row["chamfer"] for row in those if row["chamfer"] is not None]
        assert figures["chamfer"]["value"] == pytest.approx(np.median(known))
        assert figures["chamfer"]["low"] <= figures["chamfer"]["value"] <= figures["chamfer"]["high"]
    assert sum(row["valid"] for row in rows) >= 12, [row["reason"] for row in rows]
    for row in rows:
        assert row["valid"] <= row["parsed"]
        assert row["valid"] == (row["chamfer"] is not None) == (row["iou"] is not None)
        assert row["caption"].startswith("A block, ")
    pictured = [row["truth_png"] for row in rows if row["truth_png"] is not None]
    assert len(pictured) == 2 * len(MIXES)
    assert all(one.startswith(b"\x89PNG") for one in pictured)
    said = (place / "said").read_text()
    assert "6 CAD models by text, text+points+image, none" in said
    assert "next" in said
    assert "zerofit generate runs/blocks --text 'A block, " in said
    assert not (place / "runs" / "blocks" / "evaluations" / "1" / "parts").exists()


def test_cut_off_and_gone_on_with_on_other_ranks_the_rows_are_the_same(place: Path) -> None:
    done = command(place, *WORDS, "--nproc", "1", "--output", "whole")
    assert done.returncode == 0, done.stderr[-3000:]
    _, rows = found(place / "whole")
    assert len(rows) == TEST * len(MIXES)
    cut = place / "runs" / "blocks" / "evaluations" / "2" / "parts"
    launcher = subprocess.Popen(
        [sys.executable, "-m", "zerofit", *WORDS, "--nproc", "2"],
        cwd=place,
        env=environment(ZEROFIT_CACHE=str(place / "cache")),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 300
    while not list(cut.glob("part-*.parquet")):
        assert launcher.poll() is None
        assert time.monotonic() < deadline, "waited for 300 s"
        time.sleep(0.002)
    os.kill(launcher.pid, signal.SIGTERM)
    _, said = launcher.communicate(timeout=100)
    assert launcher.returncode == 4, said
    assert "go on with: zerofit eval runs/blocks --temperature 1.0 --seed 3 --pictures 0" in said
    left = {path: path.stat().st_mtime_ns for path in cut.glob("*.parquet")}
    assert left
    other = command(place, *WORDS[:-1], "1", "--output", str(cut.parent))
    refused(other, "under other settings (pictures), which was cut off")
    done = command(place, *WORDS, "--nproc", "2")
    assert done.returncode == 0, done.stderr[-3000:]
    assert f"goes on: {len(left)} of " in done.stdout
    assert (cut.parent / "shapes.parquet").read_bytes() == (place / "whole" / "shapes.parquet").read_bytes()


def test_held_to_the_grammar_on_other_blocks_by_what_was_not_trained(place: Path) -> None:
    shutil.copytree(place / "blocks", place / "others")
    asked = ("--mix", "image,text", "--constrained", "--data", "data.path=others", "--limit", "3", "--nproc", "1")
    done = command(place, "eval", "runs/blocks", *asked, "--temperature", "2", "--output", "held")
    assert done.returncode == 0, done.stderr[-3000:]
    result, rows = found(place / "held")
    assert list(result["figures"]) == ["text", "image", "none"]
    assert all(row["parsed"] for row in rows if row["stopped"]), [row["reason"] for row in rows]
    assert "others, test split; temperature 2, held to the grammar" in done.stdout


@pytest.mark.parametrize("suffix", [".step", ".stl", ".png", ".txt"])
def test_one_block_is_made_of_what_is_told(place: Path, suffix: str) -> None:
    np.savetxt(place / "cloud.xyz", np.random.default_rng(0).uniform(0, 30, (100, 3)))
    Image.new("RGB", (40, 60), (200, 90, 90)).save(place / "one.png")
    Image.new("RGB", (40, 60), (90, 90, 200)).save(place / "two.png")
    cloud = ("--points", "cloud.xyz", "--fit")
    told = (*cloud, "--image", "one.png", "--image", "two.png") if suffix == ".png" else ()
    out = place / f"part{suffix}"
    done = command(place, "generate", "runs/blocks", "--text", "A block, 0.5 high.", *told, "--out", out.name)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    assert f"wrote     part{suffix}" in done.stdout
    begins = {".step": b"ISO-10303-21;", ".stl": b"", ".png": b"\x89PNG", ".txt": b"loop\n"}
    assert out.read_bytes().startswith(begins[suffix])
    assert out.stat().st_size > 50


def test_where_no_try_is_valid_that_is_said(place: Path) -> None:
    words = ("--text", "A block.", "--out", "none.step", "--max-tokens", "3", "--tries", "2")
    done = command(place, "generate", "runs/blocks", *words)
    assert done.returncode == 1, done.stderr
    assert "none of 2 tries made a valid solid, and nothing is written: 1: text: line" in done.stderr
    assert "ends before it is whole; 2: " in done.stderr
    assert not (place / "none.step").exists()


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("eval", "runs/blocks", "--mix", "txt"), "'txt' is none of text, points"),
        (("eval", "runs/blocks", "--k", "1,8"), "--k: is for language models, and runs/blocks is of task cad"),
        (("eval", "runs/blocks", "--max-tokens", "500"), "context of 128: use --max-tokens"),
        (("eval", "runs/blocks", "--dtype", "fp8"), "--dtype fp8 is none of bf16, fp16, fp32"),
        (("generate", "runs/blocks", "--out", "a.step"), "--text, --points or --image"),
        (("generate", "runs/blocks", "--text", "a", "--out", "a.obj"), "is written as one of .step, .stl, .png, .txt"),
        (("generate", "runs/blocks", "--text", "a", "--out", "no/a.step"), "is no directory"),
        (
            ("generate", "runs/blocks", "--points", "no.npy", "--out", "a.step"),
            "--points no.npy: there is no such file",
        ),
        (("generate", "runs/blocks", "--text", "a", "--temperature", "0", "--out", "a.step"), "use --tries 1"),
        (("generate", "nowhere", "--text", "a", "--out", "a.step"), "nowhere"),
        (("train", "blocks.yaml", "checkpoint.at_end=false"), "evaluate.shapes: the last checkpoint makes them"),
    ],
)
def test_mistakes_are_answered_in_one_line(place: Path, words: tuple[str, ...], reason: str) -> None:
    refused(command(place, *words), reason)


def test_more_images_than_rows_saw_at_once_are_refused(place: Path) -> None:
    Image.new("RGB", (32, 32)).save(place / "one.png")
    told = [word for _ in range(6) for word in ("--image", "one.png")]
    done = command(place, "generate", "runs/blocks", *told, "--out", "many.step")
    refused(done, "--image: 6 images, but the run's rows saw 4 at once at most: leave 2 out")
    assert not (place / "many.step").exists()


def test_evaluations_show_the_most_images_or_as_many_as_are_asked_for(place: Path) -> None:
    asked = ("eval", "runs/blocks", "--mix", "text+points+image", "--limit", "3", "--nproc", "1", "--pictures", "0")
    for images in (1, 4):
        done = command(place, *asked, "--data", f"data.views_at_once={images}", "--output", f"of-{images}")
        assert done.returncode == 0, done.stderr[-3000:]
    done = command(place, *asked, "--output", "of-most")
    assert done.returncode == 0, done.stderr[-3000:]
    few, four, most = (found(place / name)[1] for name in ("of-1", "of-4", "of-most"))
    assert four == most
    assert len(few) == len(four) == 6


def test_a_cloud_in_another_frame_is_refused(place: Path) -> None:
    np.save(place / "far.npy", np.random.default_rng(0).uniform(0, 30, (100, 3)))
    done = command(place, "generate", "runs/blocks", "--text", "a", "--points", "far.npy", "--out", "a.step")
    assert done.returncode == 2
    assert "those of parts are within 0.75 of the origin: scale it, or let --fit do it" in done.stderr
