"""Peaks that a GPU measured after they had been predicted (docs/plan-accuracy.jsonl): they must stay within 3 %."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[2] / "bench"))
import noise
import plan_accuracy

MEASURED = Path(__file__).parents[2] / "docs/plan-accuracy.jsonl"
NAMES = (
    "classify-1.7b/zero1/1",
    "vit-base/ddp/1",
    "sft-1.7b/zero1/1",
    "sft-1.7b/fsdp2+offload_all/1",
    "lora-8b/zero2/1",
    "lora-8b/zero3/2",
    "qlora-7b/zero2/1",
    "classify-1.7b/fsdp2/2",
    "qlora-7b/zero2/4",
    "vit-huge/zero2/4",
    "probe-8b/zero3/2",
    "cad-alike-1.7b/zero3/2",
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("accuracy") / "data"
    noise.make(path)
    return path


@pytest.mark.parametrize("name", NAMES)
def test_a_peak_is_what_was_measured(name: str, data: Path) -> None:
    gpus = plan_accuracy.ranks_of(name)
    recipe, *fields = dict(plan_accuracy.configurations(gpus, data))[name]
    found = plan_accuracy.predicted(recipe, fields, gpus, argparse.Namespace(gpu="h200"))
    measured = plan_accuracy.read(MEASURED)[name]["measured_gib"]
    assert found["predicted_gib"] == pytest.approx(measured, rel=0.03)
