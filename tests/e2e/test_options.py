"""What a recipe may ask for besides: compiled blocks, a tracker."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from cli_runs import environment, steps, tiny, trained

TWO = ("--nproc", "2")


def losses(cwd: Path, *overrides: str) -> list[float]:
    cwd.mkdir()
    env = environment(TORCHINDUCTOR_CACHE_DIR=str(cwd / "kernels"))
    wanted = (str(tiny(cwd)), "train.max_steps=3", *overrides, *TWO)
    return [record["loss"] for record in steps(trained(*wanted, cwd=cwd, env=env))]


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> list[float]:
    directory = tmp_path_factory.mktemp("plain") / "run"
    found = losses(directory)
    assert not list(directory.glob("kernels/**/*.cpp"))
    return found


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on a CPU")
@pytest.mark.parametrize("strategy", ["ddp", "fsdp2", "zero2"])
def test_compiled_blocks_train_the_same(tmp_path: Path, plain: list[float], strategy: str) -> None:
    compiled = losses(tmp_path / "run", f"strategy={{name: {strategy}, compile: true}}")
    assert compiled == pytest.approx(plain, rel=1e-6)
    assert list(tmp_path.glob("run/kernels/**/*.cpp"))  # it was compiled


def test_tensorboard_gets_training_and_validation(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = trained(str(tiny(tmp_path)), "track.to=[tensorboard]", "evaluate.every_steps=3", *TWO, cwd=tmp_path)
    events = EventAccumulator(str(run / "tensorboard")).Reload()
    recorded = events.Scalars("train/loss")
    assert [event.value for event in recorded] == pytest.approx([record["loss"] for record in steps(run)], rel=1e-6)
    assert [event.step for event in events.Scalars("eval/top1")] == [3, 6]
