"""Adapters over weights in 4 bits train the same under every strategy; the oracle's layers are bitsandbytes' own."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from cases import furthest, plan
from reference import Curve, language_reference
from safetensors.torch import load_file
from starts import Work, column, outcome_of, run_script, run_together
from test_sft import GRAD_NORM, LOSS, PACKED, STEPS, STRATEGIES, WEIGHT, WORLD, small

from zerofit.config.schema import Recipe
from zerofit.plan.files import write_spec
from zerofit.plan.spec import RunSpec
from zerofit.train.engine import WEIGHTS

pytestmark = pytest.mark.thorough  # test_sft.py has a selection

FP16 = ("ddp", "fsdp2", "zero1", "zero2", "zero3")
RUNS: dict[str, Recipe] = {
    strategy: small(PACKED, strategy, 2) for strategy in (*STRATEGIES, "fsdp2+offload_all", "zero3+offload_all")
}
for _engine in ("fsdp2", "zero3"):
    RUNS[f"{_engine}-checkpointing"] = small(PACKED, {"name": _engine, "activation_checkpointing": "full"}, 2)
LOW = {
    f"{name}-bf16": small(PACKED, {"name": name, "precision": "bf16"}, 2) for name in ("ddp", "fsdp2", "zero2", "zero3")
}
RUNS |= LOW
MOVED = {
    "zero3-after-fsdp2": ("fsdp2", "zero3"),
    "fsdp2-after-ddp": ("ddp", "fsdp2"),
    "zero2-after-zero3": ("zero3", "zero2"),
}


@pytest.fixture(scope="module")
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, RunSpec]:
    """Those that are asked for, with their checkpoints, in one start; some once more, from the middle of another."""
    directory = tmp_path_factory.mktemp("qlora")
    here = [
        item.callspec.params
        for item in request.session.items
        if item.path == request.path and "trained" in item.fixturenames
    ]
    moved = {params["moved"] for params in here if "moved" in params}
    wanted = {params["name"] for params in here if "name" in params} | {name for one in moved for name in MOVED[one]}
    specs = {name: plan(made, WORLD, directory / name) for name, made in RUNS.items() if name in wanted}
    works: list[tuple[RunSpec, Path | None]] = [(spec, None) for spec in specs.values()]
    for name in sorted(moved):
        before, after = MOVED[name]
        specs[name] = plan(RUNS[after], WORLD, directory / name)
        works.append((specs[name], specs[before].run_dir / "checkpoints" / "step-000005"))
    for spec in specs.values():
        write_spec(spec)
    works.sort(key=lambda work: (work[1] is not None, work[0].recipe.strategy.name == "zero3"))
    run_together(
        [Work(str(spec.run_dir), whole=True, resume=from_ and str(from_)) for spec, from_ in works],
        WORLD,
        directory / "start",
    )
    return specs


@cache
def oracle(**model: Any) -> Curve:
    return language_reference(plan(small({**PACKED, **model}, "ddp", 4), 1, Path("unused")))


@pytest.mark.parametrize("name", RUNS)
def test_the_same_training(trained: dict[str, RunSpec], name: str) -> None:
    spec, right = trained[name], oracle()
    held = load_file(spec.run_dir / "checkpoints" / f"step-{STEPS:06d}" / WEIGHTS)
    assert held.keys() == right.weights.keys()  # adapters alone
    assert right.loss[-1] < right.loss[0]  # it learns
    if name in LOW:
        assert furthest(column(spec, "loss"), right.loss) < 2e-4
        return
    assert furthest(column(spec, "loss"), right.loss) < LOSS
    assert furthest(column(spec, "grad_norm"), right.grad_norm) < GRAD_NORM
    assert outcome_of(spec)["test"]["loss"] == pytest.approx(right.test_loss, rel=LOSS)
    for key, value in right.weights.items():
        assert (held[key] - value).abs().max() < WEIGHT, key


@pytest.mark.parametrize("moved", MOVED)
def test_it_goes_on_under_another_strategy(trained: dict[str, RunSpec], moved: str) -> None:
    assert column(trained[moved], "loss") == pytest.approx(oracle().loss[5:], rel=LOSS)
    assert column(trained[moved], "grad_norm") == pytest.approx(oracle().grad_norm[5:], rel=GRAD_NORM)


def test_the_reference_discriminates() -> None:
    assert furthest(oracle(quantize=None).grad_norm, oracle().grad_norm) > 100 * GRAD_NORM


def test_in_fp16_no_engine_makes_anything_in_bf16(tmp_path: Path) -> None:
    path = tmp_path / "works.json"
    path.write_text(json.dumps(FP16))
    run_script("fp16_worker.py", path, world=WORLD)
    for rank in range(WORLD):
        found = json.loads(path.with_suffix(f".{rank}.json").read_text())
        for name in FP16:
            assert found[name]["types"] == ["float16", "float32", "float64"], name
            assert found[name]["held"] == ["torch.float16", "torch.float32", "torch.uint8"], name
            assert found[name]["losses"] == pytest.approx(found["ddp"]["losses"], rel=1e-4), name
            assert found[name]["losses"][-1] < found[name]["losses"][0], name
            assert found[name]["completions"] == found["ddp"]["completions"], name
