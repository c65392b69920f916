"""`init_from` on checkpoints that real runs wrote, under every ZeRO stage; and bad input on the command line."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from cli_runs import TINY, refused, tiny, trained, zerofit
from safetensors.torch import load_file
from torch import Tensor

from zerofit.checkpoint.manifest import newest
from zerofit.launch.origin import resolve
from zerofit.models.stored import stored_weights

# Odd sizes, so that shards are padded; flat tensors of a few parameters, so that there are several of them.
ODD = TINY.replace("hidden_size: 16", "hidden_size: 15").replace("max_steps: 6", "max_steps: 2")
PIECES = "strategy.deepspeed={zero_optimization: {sub_group_size: 500}}"
FROZEN = "model.trainable=[{pattern: 'layers.0.mlp', freeze: true}, {pattern: .}]"
RUNS = {
    "zero1": ("strategy=zero1",),
    "zero2": ("strategy=zero2",),
    "zero3": ("strategy={name: zero3, precision: bf16}", PIECES, FROZEN),
}
STILL = ("optimizer.lr=1e-30", "train.seed=9")
"""Too small a step to change a float32 weight, and other fresh weights than the origin's."""


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The run directory of two steps on two ranks under a strategy of `RUNS`."""

    @cache
    def train(strategy: str) -> Path:
        cwd = tmp_path_factory.mktemp(strategy)
        return trained(str(tiny(cwd, ODD)), *RUNS[strategy], "--nproc", "2", cwd=cwd)

    return train


def written(run: Path) -> tuple[Path, dict[str, Tensor]]:
    """The newest checkpoint and its weights."""
    checkpoint = newest(run / "checkpoints")
    assert checkpoint is not None
    return checkpoint, load_file(checkpoint / "model.safetensors")


@pytest.mark.parametrize("strategy", [pytest.param("zero1", marks=pytest.mark.thorough), "zero2", "zero3"])
def test_a_checkpoint_gives_what_was_saved_however_it_is_named(
    runs: Callable[[str], Path], tmp_path: Path, strategy: str
) -> None:
    run = runs(strategy)
    checkpoint, expected = written(run)
    copy = tmp_path / "copy"  # as DeepSpeed alone writes it
    shutil.copytree(checkpoint, copy, ignore=shutil.ignore_patterns("model.safetensors", "manifest.json"))
    tag = next(checkpoint.glob("global_step*"))
    assert resolve(str(run)) == checkpoint
    for path in (checkpoint, tag, copy):
        readers = stored_weights(resolve(str(path)), trust=False)
        assert readers.keys() == expected.keys()
        for name, read in readers.items():
            value = read()
            assert value.shape == expected[name].shape
            assert torch.equal(value.to(expected[name].dtype), expected[name]), name


def test_a_run_starts_from_the_weights_of_another(runs: Callable[[str], Path], tmp_path: Path) -> None:
    run = runs("zero3")
    _, expected = written(run)
    tag = next((run / "checkpoints").glob("step-*/global_step*"))
    done = zerofit(
        *("train", str(tiny(tmp_path, ODD)), *STILL, "strategy=zero3", f"init_from={tag}", "--nproc", "2"),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    assert "weights from " in done.stdout
    assert "read           27  backbone.layers.0." in done.stdout
    _, ours = written(tmp_path / "runs" / "tiny")
    assert ours.keys() == expected.keys()
    for name, value in ours.items():
        assert torch.equal(value.to(expected[name].dtype), expected[name]), name


class Hostile:
    """Makes a directory when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


def test_a_hostile_pickle_and_a_missing_file_are_named_in_one_line(tmp_path: Path) -> None:
    recipe = str(tiny(tmp_path))
    torch.save({"args": Hostile(tmp_path / "made"), "model": {}}, tmp_path / "hostile.pth")
    for name, words in {"gone.pth": ("does not exist",), "hostile.pth": ("posix.mkdir", "--trust")}.items():
        done = zerofit("train", recipe, f"init_from={name}", "strategy=single", cwd=tmp_path)
        refused(done, "init_from: ", name, *words)
        assert not list(tmp_path.glob("runs/*")), name
    assert not (tmp_path / "made").exists()


def test_a_checkpoint_of_another_shape_is_refused(runs: Callable[[str], Path], tmp_path: Path) -> None:
    done = zerofit("train", str(tiny(tmp_path)), f"init_from={runs('zero3')}", "--nproc", "2", cwd=tmp_path)
    refused(done, "init_from: ", "backbone.", "15", "16", "different models")
    assert not list(tmp_path.glob("runs/*"))
