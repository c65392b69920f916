"""What a recipe may ask for besides: compiled blocks, a tracker."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from cli_runs import environment, steps, tiny, trained, zerofit_process

pytestmark = pytest.mark.thorough

TWO = ("--nproc", "2")


def train_three_steps(cwd: Path, kernels: Path, *overrides: str) -> Path:
    """The run's directory; its rank 0 logs every graph that was traced."""
    cwd.mkdir()
    env = environment(TORCHINDUCTOR_CACHE_DIR=str(kernels), TORCH_LOGS="graph_code")
    return trained(str(tiny(cwd)), "train.max_steps=3", *overrides, *TWO, cwd=cwd, start=zerofit_process, env=env)


def losses(run: Path) -> list[float]:
    return [record["loss"] for record in steps(run)]


def traced(run: Path) -> bool:
    return "TRACED GRAPH" in (run / "logs" / "rank-0.log").read_text()


@pytest.fixture(scope="module")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Compiled once for all: the strategies' blocks are the same."""
    return tmp_path_factory.mktemp("kernels")


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> list[float]:
    directory = tmp_path_factory.mktemp("plain")
    run = train_three_steps(directory / "run", directory / "kernels")
    assert not traced(run)
    assert not list(directory.glob("kernels/**/*.cpp"))
    return losses(run)


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on a CPU")
@pytest.mark.parametrize(
    ("strategy", "recomputed"),
    [("ddp", "none"), ("fsdp2", "none"), ("zero2", "none"), ("zero3", "none"), ("zero3", "full")],
)
def test_compiled_blocks_train_the_same(
    tmp_path: Path, kernels: Path, plain: list[float], strategy: str, recomputed: str
) -> None:
    fields = f"name: {strategy}, compile: true, activation_checkpointing: {recomputed}"
    run = train_three_steps(tmp_path / "run", kernels, f"strategy={{{fields}}}")
    assert losses(run) == pytest.approx(plain, rel=1e-6)
    assert traced(run)
    assert list(kernels.glob("**/*.cpp"))


def test_trackers_get_training_and_validation_of_a_resumed_run_and_a_broken_one_stops_nothing(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (tmp_path / "wandb.py").write_text("raise OSError('no server')")
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    env = environment(PYTHONPATH=path)
    every = ("evaluate.every_steps=3", "checkpoint.every_steps=3")
    run = trained(
        str(tiny(tmp_path)), "track=[tensorboard, wandb]", *every, *TWO, cwd=tmp_path, start=zerofit_process, env=env
    )
    again = zerofit_process("train", "--resume", f"{run}@3", cwd=tmp_path, env=env)
    assert again.returncode == 0, again.stderr
    assert again.stdout.count("wandb: OSError: no server; it is left out from here on; metrics.jsonl has all") == 1
    events = EventAccumulator(str(run / "tensorboard")).Reload()
    recorded = events.Scalars("loss")
    assert [event.step for event in recorded] == [1, 2, 3, 4, 5, 6]
    assert [event.value for event in recorded] == pytest.approx([record["loss"] for record in steps(run)], rel=1e-6)
    assert [event.step for event in events.Scalars("val_top1")] == [3, 6]
    assert all(record["host_used_gib"] > 0 for record in steps(run))
