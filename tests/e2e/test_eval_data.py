"""A run evaluated on other data: classes are matched by name, and any labelled split will do."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from cli_runs import refused, result, tiny, trained, zerofit
from PIL import Image

from zerofit.config.data import Data
from zerofit.data.images import describe, open_split


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six steps on the digits."""
    cwd = tmp_path_factory.mktemp("run")
    return trained(str(tiny(cwd)), cwd=cwd)


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The test digits as image files in a folder per class; the folders of the last ones are made first."""
    root = tmp_path_factory.mktemp("digits")
    data = Data(source="digits")
    test = open_split(data, describe(data, None, seed=0), "test", seed=0)
    for index in reversed(range(len(test))):
        pixels, label = test[index]
        (root / str(label)).mkdir(exist_ok=True)
        Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(root / str(label) / f"{index}.png")
    return root


def evaluated(run: Path, root: Path, *words: str) -> subprocess.CompletedProcess[str]:
    fields = ("data.source=folder", str(root), *words)
    return zerofit("eval", str(run), *(part for word in fields for part in ("--data", word)), cwd=run.parents[1])


def figures(run: Path, done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert done.returncode == 0, done.stderr
    newest = max((run / "evaluations").glob("*.json"), key=lambda path: int(path.stem))
    test: dict[str, Any] = json.loads(newest.read_text())["test"]
    return test


def test_a_plain_directory_gives_the_figures_of_its_images(run: Path, digits: Path) -> None:
    found = figures(run, evaluated(run, digits, "data.limit=20", "data.validation=0.1"))
    expected = result(run)["test"]
    assert found["split"] == "train"
    assert found["confusion"] == expected["confusion"]
    assert found["loss"] == pytest.approx(expected["loss"], rel=1e-5)


def test_some_of_the_classes_keep_the_numbers_of_the_run(run: Path, digits: Path, tmp_path: Path) -> None:
    for name in ("7", "3"):
        shutil.copytree(digits / name, tmp_path / "test" / name)
    found = figures(run, evaluated(run, tmp_path))
    whole = result(run)["test"]["confusion"]
    assert found["split"] == "test"
    assert found["confusion"] == [row if label in (3, 7) else [0] * 10 for label, row in enumerate(whole)]


def test_a_class_that_the_run_does_not_know_is_named(run: Path, digits: Path, tmp_path: Path) -> None:
    for name in "012345678":
        shutil.copytree(digits / name, tmp_path / name)
    shutil.copytree(digits / "9", tmp_path / "x")  # as many classes as the run's
    refused(evaluated(run, tmp_path), str(tmp_path), "class x", "0, 1, 2")


@pytest.mark.thorough
def test_own_data_read_otherwise_gives_the_same_figures(run: Path) -> None:
    done = zerofit("eval", str(run), "--data", "data.workers=1", "--data", "data.limit=5", cwd=run.parents[1])
    found, expected = figures(run, done), result(run)["test"]
    assert (found["split"], found["confusion"]) == ("test", expected["confusion"])
