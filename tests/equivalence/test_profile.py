"""A window of traced steps: what every rank writes, and that it changes no number."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from cases import VIT, plan, recipe
from starts import column, train_together

from zerofit.plan.spec import RunSpec

STEPS, WORLD = 6, 2
WINDOW = [3, 4]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunSpec, RunSpec]:
    """The same run with the window and without, of two micro-batches a step."""
    directory = tmp_path_factory.mktemp("profile")
    sections = {"train": {"max_steps": STEPS, "micro_batch": 4}}
    plain = plan(recipe({**VIT, "dropout": 0.1}, "ddp", **sections), WORLD, directory / "plain")
    sections["profile"] = {"steps": WINDOW, "memory": True}
    traced = plan(recipe({**VIT, "dropout": 0.1}, "ddp", **sections), WORLD, directory / "traced")
    train_together([plain, traced], WORLD, directory / "start")
    return plain, traced


def test_the_same_numbers(trained: tuple[RunSpec, RunSpec]) -> None:
    plain, traced = trained
    for name in ("loss", "grad_norm", "lr"):
        assert column(traced, name) == column(plain, name), name
    assert len(column(plain, "loss")) == STEPS
    assert not (plain.run_dir / "profile").exists()


def test_every_rank_writes_the_steps_of_the_window(trained: tuple[RunSpec, RunSpec]) -> None:
    _, traced = trained
    directory = traced.run_dir / "profile"
    assert sorted(path.name for path in directory.iterdir()) == ["rank-0.json.gz", "rank-1.json.gz"]
    for rank in range(WORLD):
        trace = read(directory / f"rank-{rank}.json.gz")
        assert {"rank": rank, "world_size": WORLD, "backend": "gloo"}.items() <= trace["distributedInfo"].items()
        names = [event["name"] for event in trace["traceEvents"] if event.get("ph") == "X"]
        assert [name for name in names if name.startswith("ProfilerStep#")] == [f"ProfilerStep#{n}" for n in WINDOW]
        assert names.count("DistributedDataParallel.forward") == 4  # two micro-batches in each of two steps
        assert any(name.startswith("gloo:") for name in names)


def read(path: Path) -> dict[str, Any]:
    with gzip.open(path, "rt") as file:
        return json.load(file)
