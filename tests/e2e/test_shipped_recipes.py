"""Every shipped recipe, from the command line to its result, with sizes that two CPU cores can do.

Same engine, offload, precision, task, optimizer, augmentation and way of loading: the run's own record is compared with
the shipped recipe, and the engine that ran was verified by the run (`Engine.verify`).
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cli_runs import result, steps, zerofit
from shrink import CHANGED, SIZES, STEPS, deepspeed_differences, differences, shrunk_job

from zerofit.config.load import load_job, recipe_names
from zerofit.config.strategy import ZERO_STAGE
from zerofit.plan.files import read_spec
from zerofit.plan.spec import RunSpec

pytestmark = pytest.mark.thorough

CASES = [(name, None) for name in recipe_names()] + [("vit-huge-food101", "zero2"), ("vit-huge-food101", "zero3")]
# The others take ways that these take as well, with other data.
SHORT = [
    *(("digits", None), ("digits-probe", None), ("qwen3-8b-cifar100", None), ("qwen3-8b-cifar100-probe", None)),
    *(("vit-base-cifar100-lora", None), ("vit-huge-food101", "zero3")),
]
Ran = Callable[[str, str | None], list[Path]]


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """Runs a shipped recipe once; gives the run directory of each of its stages."""
    done: dict[tuple[str, str | None], list[Path]] = {}

    def run(name: str, strategy: str | None) -> list[Path]:
        if (name, strategy) in done:
            return done[name, strategy]
        cwd = tmp_path_factory.mktemp("shipped")
        asked = asked_for(strategy)
        job = load_job(name, asked)
        overrides = [*asked, *shrunk_job(job, cwd)]
        if job.stages[0].init_from is not None:  # the run that the recipe goes on from
            overrides.append(f"init_from={ran_before(job.stages[0].init_from)}")
        ranks = "1" if job.stages[0].strategy.name == "single" else "2"
        finished = zerofit("train", name, *overrides, "--nproc", ranks, cwd=cwd)
        assert finished.returncode == 0, finished.stdout[-2000:] + finished.stderr[-3000:]
        directory = cwd / "runs" / name
        done[name, strategy] = [directory / one for one in job.directories] if job.staged else [directory]
        return done[name, strategy]

    def ran_before(path: str) -> Path:
        name, stage = Path(path).parts[-2:]
        return next(one for one in run(name, None) if one.name == stage)

    return run


def asked_for(strategy: str | None) -> list[str]:
    return [] if strategy is None else [f"strategy={strategy}"]


def of_images(test: dict[str, Any], spec: RunSpec) -> None:
    assert test["samples"] == (spec.data.test or spec.data.validation) > 0
    assert 0 <= test["top1"] <= test["top5"] <= 1
    assert math.isfinite(test["loss"])


def of_text(test: dict[str, Any], spec: RunSpec) -> None:
    assert test["tokens"] > 0
    assert 0 <= test["token_accuracy"] <= 1
    assert math.isclose(test["perplexity"], math.exp(test["loss"]))


def of_models(test: dict[str, Any], spec: RunSpec) -> None:
    of_text(test, spec)
    assert test["models"] == (spec.data.test or spec.data.validation) > 0
    assert test["inputs"].keys() == {one.inputs.name for one in spec.recipe.cad.shares}


def of_rewards(test: dict[str, Any], spec: RunSpec) -> None:
    assert test["problems"] == (spec.data.test or spec.data.validation) > 0
    assert 0 <= test["pass@1"] <= 1
    assert math.isfinite(test["reward"])


FIGURES: dict[str, Callable[[dict[str, Any], RunSpec], None]] = {
    "classify": of_images,
    "probe": of_images,
    "sft": of_text,
    "grpo": of_rewards,
    "cad": of_models,
}


@pytest.mark.parametrize(
    ("name", "strategy"),
    [*SHORT, *(pytest.param(*case, marks=pytest.mark.thorough) for case in CASES if case not in SHORT)],
)
def test_a_shipped_recipe_runs_to_its_end(ran: Ran, name: str, strategy: str | None) -> None:
    runs = ran(name, strategy)
    job = load_job(name, asked_for(strategy))
    for number, (run, shipped) in enumerate(zip(runs, job.stages, strict=True)):
        spec = read_spec(run)
        placed = {"run_dir", "init_from"} if job.staged else {"init_from"} if shipped.init_from is not None else set()
        assert differences(shipped, spec.recipe) <= CHANGED | placed
        if number > 0:
            assert Path(spec.recipe.init_from).is_relative_to(runs[number - 1])  # itself, or what was exported of it
        assert shipped.strategy.precision in ("auto", spec.precision)
        assert (spec.deepspeed is not None) == (shipped.strategy.name in ZERO_STAGE)
        assert deepspeed_differences(shipped, spec) <= SIZES
        if spec.deepspeed is not None:
            assert json.loads((run / "deepspeed.json").read_text()) == spec.deepspeed
            assert spec.deepspeed["zero_optimization"]["stage"] == ZERO_STAGE[shipped.strategy.name]
        body, taken = result(run), steps(run)
        assert body["exit"] == "finished"
        assert [record["step"] for record in taken] == list(range(1, STEPS + 1))
        learns = 0.0 if shipped.task == "grpo" else 1e-9  # no completion of random weights is worth more than another
        assert all(math.isfinite(record["loss"]) and record["grad_norm"] >= learns for record in taken)
        FIGURES[shipped.task](body["test"], spec)
        if shipped.evaluate.problems is not None:
            (answered,) = run.glob("evaluations/*/evaluation.json")
            found = json.loads(answered.read_text())
            assert found["figures"].keys() >= {"pass@1", "pass@8", "maj@8"}
            assert (found["compared_with"] is not None) == (number > 0)
