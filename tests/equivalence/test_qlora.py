"""Adapters over weights in 4 bits train the same under every strategy; the oracle's layers are bitsandbytes' own."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
from cases import furthest, plan
from reference import Curve, language_reference
from safetensors.torch import load_file
from starts import Work, column, outcome_of, run_together
from test_sft import GRAD_NORM, LORA, LOSS, STEPS, STRATEGIES, WEIGHT, WORLD, small

from zerofit.config.schema import Recipe
from zerofit.plan.files import write_spec
from zerofit.plan.spec import RunSpec
from zerofit.train.engine import WEIGHTS

PACKED = {**LORA, "quantize": "nf4"}
# 7 x 16 weights are 56 bytes; 33 are no whole number of floats a row, nor a whole number of scales.
RUNS: dict[str, Recipe] = {strategy: small(PACKED, strategy, 2) for strategy in (*STRATEGIES, "zero3+offload_all")}
for _engine in ("fsdp2", "zero3"):
    RUNS[f"{_engine}-checkpointing"] = small(PACKED, {"name": _engine, "activation_checkpointing": "full"}, 2)
SHORT = ("fsdp2", "zero3")
NAMES = [pytest.param(name, marks=[] if name in SHORT else pytest.mark.thorough) for name in RUNS]
MOVED = {
    "fsdp2-after-ddp": ("ddp", "fsdp2"),
    "zero2-after-zero3": ("zero3", "zero2"),
    "zero3-after-fsdp2": ("fsdp2", "zero3"),
}


@pytest.fixture(scope="module")
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, RunSpec]:
    """Those that are asked for, with their checkpoints, in one start; some once more, from the middle of another."""
    directory = tmp_path_factory.mktemp("qlora")
    here = [item for item in request.session.items if item.path == request.path and "name" in item.fixturenames]
    wanted = {item.callspec.params["name"] for item in here}
    specs = {name: plan(RUNS[name], WORLD, directory / name) for name in RUNS if name in wanted}
    works: list[tuple[RunSpec, Path | None]] = [(spec, None) for spec in specs.values()]
    works.sort(key=lambda work: work[0].recipe.strategy.name == "zero3")
    for name, (before, after) in MOVED.items():
        if {before, after} <= specs.keys():
            again = plan(RUNS[after], WORLD, directory / name)
            works.append((again, specs[before].run_dir / "checkpoints" / "step-000005"))
            specs[name] = again
    for spec in specs.values():
        write_spec(spec)
    run_together(
        [Work(str(spec.run_dir), whole=True, resume=from_ and str(from_)) for spec, from_ in works],
        WORLD,
        directory / "start",
    )
    return specs


@cache
def oracle() -> Curve:
    return language_reference(plan(small(PACKED, "ddp", 4), 1, Path("unused")))


@pytest.mark.parametrize("name", NAMES)
def test_the_same_training(trained: dict[str, RunSpec], name: str) -> None:
    spec, right = trained[name], oracle()
    assert furthest(column(spec, "loss"), right.loss) < LOSS
    assert furthest(column(spec, "grad_norm"), right.grad_norm) < GRAD_NORM
    assert outcome_of(spec)["test"]["loss"] == pytest.approx(right.test_loss, rel=LOSS)
    assert right.loss[-1] < right.loss[0]  # it learns
    held = load_file(spec.run_dir / "checkpoints" / f"step-{STEPS:06d}" / WEIGHTS)
    assert held.keys() == right.weights.keys()  # adapters alone
    for key, value in right.weights.items():
        assert (held[key] - value).abs().max() < WEIGHT, key
