from __future__ import annotations

import gzip
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from plan_examples import CPU, FACTS, recipe
from pydantic import ValidationError

from zerofit.config.errors import UserError
from zerofit.config.profile import Profile
from zerofit.measure.profile import Window
from zerofit.plan.build import make_plan


@pytest.fixture(scope="module", autouse=True)
def group() -> Iterator[None]:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def take(directory: Path, steps: range, window: tuple[int, int] = (3, 5)) -> list[str]:
    """The steps that were traced of a run that took `steps`, in order; none where nothing was written."""
    one = Window(Profile(steps=window), directory, torch.device("cpu"))
    for step in steps:
        one.begin(step)
        torch.ones(2).add(step)
        one.end(step)
    one.close()
    path = directory / "rank-0.json.gz"
    if not path.exists():
        return []
    assert os.listdir(directory) == [path.name]
    with gzip.open(path, "rt") as file:
        trace = json.load(file)
    assert trace["distributedInfo"]["world_size"] == 1
    return [event["name"] for event in trace["traceEvents"] if event["name"].startswith("ProfilerStep#")]


@pytest.mark.parametrize(
    ("steps", "taken"),
    [
        (range(1, 9), [3, 4, 5]),
        (range(1, 5), [3, 4]),  # it stopped there
        (range(5, 9), [5]),  # it was resumed there
        (range(6, 9), []),
        (range(1, 3), []),
    ],
)
def test_takes_what_a_run_takes_of_the_window(tmp_path: Path, steps: range, taken: list[int]) -> None:
    assert take(tmp_path / "profile", steps) == [f"ProfilerStep#{step}" for step in taken]


def test_a_window_taken_again_leaves_nothing_of_the_one_before(tmp_path: Path) -> None:
    for name in ("rank-0.json.gz", "rank-3.json.gz", "memory-rank-3.pickle", "trace.json"):
        (tmp_path / name).write_text("of four ranks")
    assert take(tmp_path, range(5, 9)) == ["ProfilerStep#5"]


def test_a_trace_that_cannot_be_written_ends_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "profile").write_text("in the way")
    one = Window(Profile(steps=(1, 1), memory=True), tmp_path / "profile", torch.device("cpu"))
    one.begin(1)
    one.end(1)
    said = capsys.readouterr().out.splitlines()
    assert said == [
        "profile.memory: on a CPU there is no snapshot of the device's memory",
        "profile: rank 0 has written no trace: File exists; training goes on",
    ]


@pytest.mark.parametrize("steps", [[4, 3], [0, 2], [3], [1, 2, 3], 3])
def test_impossible_windows_are_refused(steps: object) -> None:
    with pytest.raises(ValidationError):
        Profile.model_validate({"steps": steps})


def test_a_window_beyond_the_run_is_refused_in_the_plan(tmp_path: Path) -> None:
    asked = recipe(profile={"steps": [40, 45]})  # the run has 44 steps
    with pytest.raises(UserError, match=r"profile.steps: step 45 is beyond the run's last, 44; use steps up to 44"):
        make_plan(asked, facts=FACTS, hardware=CPU, ranks=2, run_dir=tmp_path)


def test_cached_features_are_not_traced(tmp_path: Path) -> None:
    asked = recipe(task="probe", probe={"features": "cached"}, profile={"steps": [1, 2]})
    with pytest.raises(UserError, match=r"profile: a probe on cached features is not traced"):
        make_plan(asked, facts=FACTS, hardware=CPU, ranks=1, run_dir=tmp_path)
