"""What a recipe may ask for besides: compiled blocks, a tracker."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from cli_runs import environment, steps, tiny, trained

pytestmark = pytest.mark.thorough

TWO = ("--nproc", "2")


def train_three_steps(cwd: Path, kernels: Path, *overrides: str) -> Path:
    """The run's directory; its rank 0 logs every graph that was traced."""
    cwd.mkdir()
    env = environment(TORCHINDUCTOR_CACHE_DIR=str(kernels), TORCH_LOGS="graph_code")
    return trained(str(tiny(cwd)), "train.max_steps=3", *overrides, *TWO, cwd=cwd, env=env)


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
    "strategy", ["zero2", *(pytest.param(one, marks=pytest.mark.thorough) for one in ("ddp", "fsdp2"))]
)
def test_compiled_blocks_train_the_same(tmp_path: Path, kernels: Path, plain: list[float], strategy: str) -> None:
    run = train_three_steps(tmp_path / "run", kernels, f"strategy={{name: {strategy}, compile: true}}")
    assert losses(run) == pytest.approx(plain, rel=1e-6)
    assert traced(run)
    assert list(kernels.glob("**/*.cpp"))


def test_tensorboard_gets_training_and_validation(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = trained(str(tiny(tmp_path)), "track.to=[tensorboard]", "evaluate.every_steps=3", *TWO, cwd=tmp_path)
    events = EventAccumulator(str(run / "tensorboard")).Reload()
    recorded = events.Scalars("train/loss")
    assert [event.value for event in recorded] == pytest.approx([record["loss"] for record in steps(run)], rel=1e-6)
    assert [event.step for event in events.Scalars("eval/top1")] == [3, 6]
