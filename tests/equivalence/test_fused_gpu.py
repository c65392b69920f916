"""On a GPU: a fused AdamW takes the steps of torch's default, makes nothing, and skips the step that overflows."""

from __future__ import annotations

import json
from typing import Any

import pytest
from cases import MODELS, OPTIMIZER, STEPS, furthest, plan, recipe
from starts import column, run_script

from zerofit.models.trainable import param_groups
from zerofit.models.whole import describe_model
from zerofit.plan.files import write_spec
from zerofit.plan.hardware import detect
from zerofit.plan.spec import RunSpec

pytestmark = pytest.mark.gpu
STRATEGIES = ("single", "zero2")
WAYS = (False, True)
"""torch's default, and fused."""
# 9 million parameters, of 1 to 4 MiB each: what the allocator rounds up is little beside them.
WIDE = {"hidden_size": 512, "num_hidden_layers": 3, "num_attention_heads": 8, "intermediate_size": 2048}
OVERFLOW = 3
Runs = dict[tuple[str, str, bool], RunSpec]
"""By kind (losses, memory, overflow), strategy, and whether AdamW is fused."""


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    directory, hardware = tmp_path_factory.mktemp("fused"), detect()
    specs: Runs = {}
    works: list[dict[str, Any]] = []
    for kind, strategy in (
        *(("losses", one) for one in STRATEGIES),
        *(("memory", one) for one in STRATEGIES),
        ("overflow", "single"),
    ):
        made = recipe(
            {**MODELS["vit"], **({"shape": WIDE} if kind == "memory" else {})},
            {"name": strategy, "precision": "fp16" if kind == "overflow" else "fp32"},
            train={"max_steps": STEPS if kind == "losses" else 8, "micro_batch": 16},
            optimizer={"weight_decay": 0.1, "warmup": {"steps": 5}, **OPTIMIZER["vit"]},
        )
        for fused in WAYS:
            spec = plan(made, 1, directory / f"{kind}-{strategy}-{fused}", hardware)
            specs[kind, strategy, fused] = spec
            write_spec(spec)
            works.append(
                {"run": str(spec.run_dir), "fused": fused, "overflow": OVERFLOW if kind == "overflow" else None}
            )
    path = directory / "start" / "works.json"
    path.parent.mkdir()
    path.write_text(json.dumps(works))
    run_script("fused_worker.py", path, world=1, hardware=hardware)
    return specs


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_it_takes_the_same_steps(runs: Runs, strategy: str) -> None:
    default, fused = (runs["losses", strategy, way] for way in WAYS)
    deviation = furthest(column(fused, "loss"), column(default, "loss"))
    print(strategy, "furthest from torch's default", deviation)
    assert len(column(fused, "loss")) == STEPS
    assert deviation < 1e-6  # as in test_equivalence.py


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_it_makes_nothing_where_the_default_makes_4_bytes_a_parameter(runs: Runs, strategy: str) -> None:
    """Of the group that is the largest: one is stepped after the other.

    The optimizer's own peak is looked at; with float32 weights ZeRO's is elsewhere in the step, as it joins gradients.
    """
    default, fused = (runs["memory", strategy, way] for way in WAYS)
    groups = param_groups(describe_model(default).model, default)
    largest = 4 * max(sum(one.numel() for one in group["params"]) for group in groups)
    assert made(default) == pytest.approx(largest, rel=0.1)
    assert made(fused) < 0.01 * largest


def test_a_step_that_overflows_is_none_of_the_schedule_s(runs: Runs) -> None:
    default, fused = (runs["overflow", "single", way] for way in WAYS)
    rates = column(fused, "lr")
    assert rates == column(default, "lr")
    assert rates[OVERFLOW - 1] in (rates[OVERFLOW - 2], rates[OVERFLOW]), "in the warmup each step has its own rate"
    assert furthest(column(fused, "loss"), column(default, "loss")) < 1e-3  # measured in fp16


def made(spec: RunSpec) -> int:
    """Bytes, in calls of the optimizer after the first ones, which make what stays."""
    found = json.loads((spec.run_dir / "made.json").read_text())
    return max(found[len(found) // 2 :])
