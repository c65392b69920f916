"""A fused AdamW takes the steps that the ordinary one takes, and each goes on from the other's checkpoints.

It is CUDA's; a CPU has its kernel, too, so that engines run with it here. What needs a GPU is in test_fused_gpu.py.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from cases import VIT, furthest, plan, recipe
from starts import Work, asked_for, column, outcome_of, run_together
from test_any_to_any import bits

from zerofit.config.schema import Recipe
from zerofit.models.build import build_model
from zerofit.models.placement import WholePlacement
from zerofit.models.zero_files import tag_directory
from zerofit.plan.files import write_spec
from zerofit.plan.spec import RunSpec
from zerofit.train.optimizers import group_names

STRATEGIES = ("ddp", "fsdp2", "zero1", "zero2", "zero3")  # ZeRO-3 replaces F.linear for the rest of a process
STEPS, SAVED = 20, 8
LOSS, GRAD_NORM = 1e-6, 3e-6  # as in test_equivalence.py
WAYS = (False, True)
"""Ordinary, and fused."""
NAMES = [name if name in ("fsdp2", "zero3") else pytest.param(name, marks=pytest.mark.thorough) for name in STRATEGIES]
Runs = dict[tuple[str, bool, bool], RunSpec]
"""By strategy, whether it is fused, and whether it went on from a checkpoint of the other way."""


def two_groups(strategy: str) -> Recipe:
    """Sizes that ranks cannot share evenly; of ZeRO-3's optimizer each group is several that are stepped in turn."""
    several = {"zero_optimization": {"sub_group_size": 1000}} if strategy == "zero3" else None
    return recipe(
        VIT,
        {"name": strategy, "deepspeed": several},
        data={"limit": 90},
        train={"micro_batch": 4, "max_steps": STEPS},
        checkpoint={"every_steps": SAVED, "keep": 9},
    )


def saved(spec: RunSpec, step: int = SAVED) -> Path:
    return spec.run_dir / "checkpoints" / f"step-{step:06d}"


@pytest.fixture(scope="module")
def runs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """Both ways from the start, and from SAVED on from the other way's checkpoint, which is saved again first."""
    directory, asked = tmp_path_factory.mktemp("fused"), asked_for(request)
    specs: Runs = {}
    works = []
    for name in (one for one in STRATEGIES if one in asked):
        for resumed in (False, True):
            for fused in WAYS:
                words = (name, "fused" if fused else "ordinary", "resumed" if resumed else "whole")
                spec = specs[name, fused, resumed] = plan(two_groups(name), 2, directory / "-".join(words))
                write_spec(spec)
                left = str(saved(specs[name, not fused, False])) if resumed else None
                works.append(Work(str(spec.run_dir), whole=True, fused=fused, resume=left, resave=resumed))
    run_together(works, 2, directory / "start")
    return specs


@pytest.mark.parametrize("name", NAMES)
def test_a_fused_adamw_takes_the_same_steps(runs: Runs, name: str) -> None:
    ordinary, fused = (runs[name, way, False] for way in WAYS)
    assert len(column(fused, "loss")) == STEPS
    assert outcome_of(ordinary)["fused_calls"] == 0
    assert outcome_of(fused)["fused_calls"] >= STEPS
    assert furthest(column(fused, "loss"), column(ordinary, "loss")) < LOSS
    assert furthest(column(fused, "grad_norm"), column(ordinary, "grad_norm")) < GRAD_NORM
    assert column(fused, "lr") == column(ordinary, "lr")


@pytest.mark.parametrize("fused", WAYS, ids=["to-ordinary", "to-fused"])
@pytest.mark.parametrize("name", NAMES)
def test_each_goes_on_from_the_other_s_checkpoint(runs: Runs, name: str, fused: bool) -> None:
    source, target = runs[name, not fused, False], runs[name, fused, True]
    model = build_model(source, WholePlacement(torch.device("cpu"), torch.float32), torch.float32)
    names = group_names(model, source)
    before, after = (bits(saved(spec), names) for spec in (source, target))
    assert before.keys() == after.keys()
    assert {before[key].item() for key in before if key.endswith(" step")} == {SAVED}
    assert [key for key in before if not torch.equal(before[key], after[key])] == []
    whole = column(runs[name, fused, False], "loss")
    assert furthest(column(target, "loss"), whole[SAVED:]) < LOSS
    assert column(target, "lr") == column(source, "lr")[SAVED:]


@pytest.mark.parametrize("name", [name for name in NAMES if name != "fsdp2"])
def test_what_runs_is_this_run_s_way_whatever_wrote_the_checkpoint(runs: Runs, name: str) -> None:
    """The way is in the groups that engines write: after another way's checkpoint, too, it is the run's own."""
    for (strategy, fused, _), spec in runs.items():
        if strategy == name:
            assert ways(saved(spec, STEPS)) == {fused}


def ways(checkpoint: Path) -> set[bool]:
    """Whether the optimizer was fused that wrote a checkpoint."""
    tag = tag_directory(checkpoint)
    if tag is None:
        stored = torch.load(checkpoint / "optimizer.pt", weights_only=True)
    else:
        state = torch.load(next(tag.glob("*_optim_states.pt")), weights_only=False)["optimizer_state_dict"]
        stored = state.get("base_optimizer_state") or state["optimizer_state_dict"]
    return {bool(group["fused"]) for group in stored["param_groups"]}
