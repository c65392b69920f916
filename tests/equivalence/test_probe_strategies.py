"""A probe under every strategy: the same training, checkpoints without the backbone, resume, and the cached form."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from cases import PATCH_LM, furthest, plan
from safetensors.torch import load_file
from starts import Work, column, outcome_of, run_together

from zerofit.config.schema import Recipe
from zerofit.plan.files import write_spec
from zerofit.plan.spec import RunSpec

pytestmark = pytest.mark.thorough

STRATEGIES = ("ddp", "fsdp2", "zero1", "zero2", "zero2+offload_optimizer", "zero3")
STEPS, SAVED = 12, 7
# A backbone of half a million parameters under a head of a thousand. Its weights are wide, and a micro-batch has 16
# samples: BatchNorm divides by what features differ, and would else blow up rounding errors.
WIDE = {
    **PATCH_LM,
    "shape": {**PATCH_LM["shape"], "hidden_size": 96, "intermediate_size": 1024, "initializer_range": 0.2},
}
FULL_BYTES = 4 * 2 * (96 * 1024 * 3)
"""Less than the backbone's float32 weights take."""


def probe(strategy: str, **fields: Any) -> Recipe:
    sections: dict[str, Any] = {
        "task": "probe",
        "model": WIDE,
        "data": {"source": "digits"},
        "probe": {"batch_norm": True},
        "train": {"max_steps": STEPS, "micro_batch": 16, "global_batch": 32},
        "optimizer": {"name": "lars", "lr": 0.1, "trust_coefficient": 0.3, "weight_decay": 0.0},
        "checkpoint": {"every_steps": SAVED},
        "evaluate": {"micro_batch": 60},
    }
    return Recipe.model_validate({**sections, "strategy": strategy, **fields})


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("probe")


@pytest.fixture(scope="module")
def trained(directory: Path) -> dict[str, RunSpec]:
    specs = {strategy: plan(probe(strategy), 2, directory / strategy) for strategy in STRATEGIES}
    for spec in specs.values():
        write_spec(spec)
    run_together([Work(str(spec.run_dir), whole=True) for spec in specs.values()], 2, directory / "start")
    return specs


@pytest.fixture(scope="module")
def uninterrupted(trained: dict[str, RunSpec]) -> dict[str, tuple[list[float], Any]]:
    return {name: (column(spec, "loss"), outcome_of(spec)["test"]) for name, spec in trained.items()}


@pytest.fixture(scope="module")
def resumed(
    trained: dict[str, RunSpec], uninterrupted: dict[str, tuple[list[float], Any]], directory: Path
) -> dict[str, RunSpec]:
    works = []
    for spec in trained.values():
        checkpoints = spec.run_dir / "checkpoints"
        shutil.copytree(checkpoints / f"step-{STEPS:06d}", spec.run_dir / "last")
        shutil.rmtree(checkpoints / f"step-{STEPS:06d}")
        works.append(Work(str(spec.run_dir), whole=True, resume=str(checkpoints / f"step-{SAVED:06d}")))
    run_together(works, 2, directory / "resumed")
    return trained


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_strategy_probes_the_same(uninterrupted: dict[str, Any], strategy: str) -> None:
    """Statistics of BatchNorm are those of rank 0 under all of them, so the test figures agree, too."""
    losses, test = uninterrupted[strategy]
    right, figures = uninterrupted["ddp"]
    assert furthest(losses, right) < 1e-6
    assert test["loss"] == pytest.approx(figures["loss"], rel=1e-5)
    assert test["confusion"] == figures["confusion"]
    assert figures["loss"] < 0.95 * right[0]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_it_resumes_as_if_never_stopped(
    uninterrupted: dict[str, Any], resumed: dict[str, RunSpec], strategy: str
) -> None:
    losses, test = uninterrupted[strategy]
    assert furthest(column(resumed[strategy], "loss"), losses) < 1e-6
    assert outcome_of(resumed[strategy])["test"] == test


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_checkpoints_leave_the_backbone_out(resumed: dict[str, RunSpec], strategy: str) -> None:
    checkpoint = resumed[strategy].run_dir / "checkpoints" / f"step-{STEPS:06d}"
    held = load_file(checkpoint / "model.safetensors")
    statistics = {"head_norm.running_mean", "head_norm.running_var", "head_norm.num_batches_tracked"}
    assert held.keys() == {"head.weight", "head.bias"} | statistics
    assert held["head.weight"].shape == (10, 96)
    weighed = [path for path in checkpoint.rglob("*") if path.suffix in (".safetensors", ".pt", ".distcp", ".bin")]
    assert sum(path.stat().st_size for path in weighed) < FULL_BYTES / 8
    frozen = json.loads((checkpoint / "frozen.json").read_text())
    assert frozen == json.loads((resumed["ddp"].run_dir / "last" / "frozen.json").read_text())
    assert frozen["origin"] == "fresh weights of seed 0"


def test_cached_features_train_the_same_head(directory: Path, tmp_path: Path) -> None:
    """Without augmentation and BatchNorm the two differ by the bfloat16 of the cache alone."""
    settings = {"optimizer": {"name": "sgd", "lr": 0.5, "weight_decay": 0.0}, "checkpoint": {}}
    specs = {}
    for kind, strategy in (("online", "ddp"), ("cached", "ddp"), ("cached", "zero3"), ("cached", "fsdp2")):
        fields = {"features": kind, **({"cache": str(tmp_path / strategy)} if kind == "cached" else {})}
        name = f"{kind}-{strategy}"
        specs[name] = plan(probe(strategy, probe=fields, **settings), 2, directory / name)
        write_spec(specs[name])
    run_together([Work(str(spec.run_dir), whole=True) for spec in specs.values()], 2, directory / "kinds")
    right = column(specs["online-ddp"], "loss")
    for name in specs:
        assert furthest(column(specs[name], "loss"), right) < 2e-3, name
        assert outcome_of(specs[name])["test"]["loss"] == pytest.approx(right[-1], rel=0.5)
    results = [outcome_of(spec) for name, spec in specs.items() if name != "online-ddp"]
    assert all(result["test"]["confusion"] == results[0]["test"]["confusion"] for result in results)
    assert {result["knn_top1"] for result in results} == {results[0]["knn_top1"]}
    assert results[0]["knn_top1"] > 0.5  # even fresh weights keep some likeness
