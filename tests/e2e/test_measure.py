"""`zerofit plan --measure`: real steps, of which nothing is left but their figures."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from cli_runs import environment, tiny, zerofit_process

CHILD = Path(__file__).with_name("measure_child.py")


def child(directory: Path, *words: str) -> subprocess.Popen[str]:
    """Trials on the CPU; what they write lies in `directory`/tmp meanwhile."""
    (directory / "tmp").mkdir()
    env = environment(TMPDIR=str(directory / "tmp"), ZEROFIT_CACHE=str(directory / "cache"))
    command = [sys.executable, str(CHILD), "digits", *words]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=directory, env=env, **pipes)  # type: ignore[call-overload,no-any-return]


def left(directory: Path) -> list[str]:
    """What lies in the directory, and where temporary files go; torch leaves an empty one of its own there."""
    mine = [path.name for path in (directory / "tmp").iterdir() if path.name.startswith("zerofit")]
    return sorted({path.name for path in directory.iterdir()} - {"tmp", "cache"}) + mine


@pytest.mark.parametrize(
    "strategy", ["single", *(pytest.param(name, marks=pytest.mark.thorough) for name in ("ddp", "zero2"))]
)
def test_two_trials_are_taken_for_real_and_nothing_is_left(tmp_path: Path, strategy: str) -> None:
    with child(tmp_path, f"strategy={strategy}", "train.max_steps=500") as started:
        printed, said = started.communicate(timeout=400)
    assert started.returncode == 0, said[-3000:]
    found = json.loads(printed.splitlines()[-1])
    assert len(printed.splitlines()) == 1, "what training prints goes past standard output"
    assert "measuring 3 steps with a micro-batch of 2" in said
    assert [trial["micro_batch"] for trial in found["trials"]] == [1, 2]
    for trial, figures in zip(found["trials"], found["figures"], strict=True):
        assert trial["fits"]
        assert trial["step_s"] > 0
        assert trial["peak_gib"] == figures["peak_gib"] > 0.1, "of the host, on a CPU"
        assert (trial["predicted_gib"], trial["reserved_gib"], figures["why"]) == (None, None, None)
    assert left(tmp_path) == []


def test_ctrl_c_leaves_nothing(tmp_path: Path) -> None:
    with child(tmp_path, "strategy=single") as started:
        assert started.stderr is not None
        for line in started.stderr:
            if line.startswith("measuring"):
                break
        while not list((tmp_path / "tmp").glob("zerofit-measure-*/micro-1/logs/rank-0.log")):
            assert started.poll() is None
        started.send_signal(signal.SIGINT)
        _, said = started.communicate(timeout=100)
    assert started.returncode in (4, 130), said
    assert left(tmp_path) == []


RECIPE = """\
name: tiny
model: {kind: vit, shape: vit-base, image_size: 224}
data: {source: digits}
train: {max_steps: 100, micro_batch: 16, global_batch: 64}
optimizer: {lr: 1e-3}
strategy: {name: single, activation_checkpointing: none}
"""


def cards(*words: str, cwd: Path) -> dict[str, object]:
    """`zerofit plan RECIPE --measure` on one GPU, as JSON: what was measured of its only stage."""
    tiny(cwd, RECIPE)
    (cwd / "tmp").mkdir()
    kept = {**environment(TMPDIR=str(cwd / "tmp"), ZEROFIT_CACHE=str(cwd / "cache")), "ZEROFIT_DEVICE": ""}
    done = zerofit_process("plan", "tiny.yaml", *words, "--nproc", "1", "--measure", "--json", cwd=cwd, env=kept)
    assert done.returncode == 0, done.stderr[-3000:]
    assert left(cwd) == ["tiny.yaml"]
    (stage,) = json.loads(done.stdout)["stages"]
    measured: dict[str, object] = stage["measured"]
    return measured


@pytest.mark.gpu
@pytest.mark.parametrize("strategy", ["single", "zero2"])
def test_a_gpu_corrects_what_was_predicted(tmp_path: Path, strategy: str) -> None:
    found = cards(f"strategy.name={strategy}", cwd=tmp_path)
    trials = found["trials"]
    assert isinstance(trials, list)
    assert [trial["micro_batch"] for trial in trials] == [1, 2]
    for trial in trials:
        assert trial["fits"]
        assert trial["predicted_gib"] == pytest.approx(trial["peak_gib"], rel=0.15)
        assert trial["reserved_gib"] >= trial["peak_gib"]
        assert trial["step_s"] > 0
        assert trial["predicted_s"] > 0
    assert found["verdict"] == "fits"
    assert found["peak_gib"] == pytest.approx(found["predicted_gib"], rel=0.25)
    assert isinstance(found["speed"], dict)


@pytest.mark.gpu
def test_a_card_that_holds_no_micro_batch_is_an_answer(tmp_path: Path) -> None:
    found = cards("model.shape=vit-huge", "hardware.memory_cap=4GiB", cwd=tmp_path)
    (trial,) = found["trials"]  # type: ignore[misc]
    assert (trial["micro_batch"], trial["fits"], found["verdict"]) == (1, False, "does not fit")
    assert "the GPU's memory" in trial["why"]
