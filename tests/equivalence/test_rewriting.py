"""A checkpoint that another engine has written anew is its own: bit by bit, and its run goes on as if nothing was."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from cases import VIT, furthest, plan, recipe
from starts import Work, column, run_together
from test_any_to_any import bits

from zerofit.checkpoint.manifest import read_manifest, verify
from zerofit.checkpoint.store import written_as
from zerofit.config.schema import Recipe
from zerofit.models.build import build_model
from zerofit.models.placement import WholePlacement
from zerofit.plan.files import write_spec
from zerofit.plan.spec import RunSpec
from zerofit.train.optimizers import group_names

pytestmark = pytest.mark.thorough

STEPS, SAVED = 8, 4
TARGETS = ("single", "fsdp2", "zero1", "zero3")


def in_part(strategy: str, dropout: float = 0.0) -> Recipe:
    """Two groups of weight decay, odd sizes, frozen parameters."""
    trainable = [{"pattern": r"layers\.0\.", "freeze": True}, {"pattern": "bias$", "weight_decay": 0.0}, "."]
    return recipe(
        {**VIT, "dropout": dropout, "trainable": trainable},
        strategy,
        train={"micro_batch": 4, "max_steps": STEPS},
        checkpoint={"every_steps": SAVED, "keep": 9},
    )


def saved(spec: RunSpec) -> Path:
    return spec.run_dir / "checkpoints" / f"step-{SAVED:06d}"


def gone_on_with(specs: list[RunSpec], before: RunSpec) -> list[Work]:
    """Each rewrites the state of `before`, and its run goes on from there. ZeRO-3 is to be the last."""
    works = []
    for spec in specs:
        write_spec(spec)
        works.append(Work(str(spec.run_dir), rewrite=str(saved(before))))
        works.append(Work(str(spec.run_dir), whole=True, resume=str(saved(spec))))
    return works


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> RunSpec:
    """On two ranks; beside it one with dropout, which ddp has rewritten on as many ranks, and gone on with."""
    directory = tmp_path_factory.mktemp("source")
    spec = plan(in_part("zero2"), 2, directory / "zero2")
    drops = plan(in_part("zero2", 0.2), 2, directory / "drops")
    write_spec(spec), write_spec(drops)
    works = [Work(str(spec.run_dir), whole=True), Work(str(drops.run_dir), whole=True)]
    ddp = plan(in_part("ddp", 0.2), 2, directory / "drops-ddp")
    run_together([*works, *gone_on_with([ddp], drops)], 2, directory / "start")
    return spec


@pytest.fixture(scope="module")
def rewritten(source: RunSpec, tmp_path_factory: pytest.TempPathFactory) -> dict[str, RunSpec]:
    """On one rank."""
    directory = tmp_path_factory.mktemp("rewritten")
    specs = {name: plan(in_part(name), 1, directory / name) for name in TARGETS}
    run_together(gone_on_with(list(specs.values()), source), 1, directory / "start")
    return specs


@pytest.mark.parametrize("target", TARGETS)
def test_the_state_is_the_same_and_so_are_the_steps_that_follow(
    source: RunSpec, rewritten: dict[str, RunSpec], target: str
) -> None:
    spec = rewritten[target]
    assert verify(saved(spec)) == []
    assert read_manifest(saved(spec)).facts == {**written_as(spec), "step": SAVED}
    model = build_model(source, WholePlacement(torch.device("cpu"), torch.float32), torch.float32)
    names = group_names(model, source)
    right, found = bits(saved(source), names), bits(saved(spec), names)
    assert found.keys() == right.keys()
    assert [name for name in right if not torch.equal(right[name], found[name])] == []
    gone_on = column(spec, "loss")
    assert len(gone_on) == STEPS - SAVED
    assert furthest(gone_on, column(source, "loss")[SAVED:]) <= 1e-6


def test_on_as_many_ranks_the_same_activations_are_dropped(source: RunSpec) -> None:
    drops, ddp = (
        plan(in_part(name, 0.2), 2, source.run_dir.with_name(directory))
        for name, directory in (("zero2", "drops"), ("ddp", "drops-ddp"))
    )
    assert furthest(column(ddp, "loss"), column(drops, "loss")[SAVED:]) <= 1e-6
    assert furthest(column(ddp, "loss"), column(source, "loss")[SAVED:]) > 1e-3
