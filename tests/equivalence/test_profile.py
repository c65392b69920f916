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
from zerofit.report.trace.command import trace

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
        made = read(directory / f"rank-{rank}.json.gz")
        assert {"rank": rank, "world_size": WORLD, "backend": "gloo"}.items() <= made["distributedInfo"].items()
        names = [event["name"] for event in made["traceEvents"] if event.get("ph") == "X"]
        assert [name for name in names if name.startswith("ProfilerStep#")] == [f"ProfilerStep#{n}" for n in WINDOW]
        assert names.count("DistributedDataParallel.forward") == 4  # two micro-batches in each of two steps
        assert any(name.startswith("gloo:") for name in names)
        assert made["zerofit"] == {"steps": WINDOW}


def test_its_traces_are_analysed(trained: tuple[RunSpec, RunSpec], capsys: pytest.CaptureFixture[str]) -> None:
    _, traced = trained
    assert trace([traced.run_dir]) == 0
    body = json.loads((traced.run_dir / "profile" / "trace.json").read_text())
    assert (body["world_size"], body["steps"], len(body["ranks"])) == (WORLD, WINDOW, WORLD)
    for rank in body["ranks"]:
        parts = rank["compute_us"] + rank["non_compute_us"] + rank["idle_us"]
        assert parts == pytest.approx(rank["span_us"])
        assert min(rank["compute_us"], rank["communication_us"], rank["idle_us"]) > 0
    assert any(kernel["name"] == "gloo:all_reduce" for kernel in body["kernels"])
    assert capsys.readouterr().out.startswith("2 of 2 ranks on CPUs, steps 3, 4\n")


def read(path: Path) -> dict[str, Any]:
    with gzip.open(path, "rt") as file:
        return json.load(file)
