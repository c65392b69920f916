"""A run that goes on from another program's DeepSpeed checkpoint: bit by bit its state, and then our own steps.

The program (foreign_program.py) takes the first steps of a run of ours by itself, under transformers' names.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from cases import OPTIMIZER, SMALL, VIT, furthest, plan, recipe
from starts import Work, column, run_script, run_together
from torch import Tensor

from zerofit.checkpoint.native import read_state
from zerofit.config.schema import Recipe
from zerofit.launch import foreign
from zerofit.models.build import build_model
from zerofit.models.placement import WholePlacement
from zerofit.plan.files import write_spec
from zerofit.plan.spec import RunSpec
from zerofit.train.optimizers import group_names

pytestmark = pytest.mark.thorough

STEPS, SAVED, BATCH = 20, 12, 240  # epochs of 5 steps: it goes on amid the third
STAGES = (2, 3)
OURS = "ours"
"""The tag's directory of a zero2 run, alone, without what is ours beside it."""
ROUTES = {1: (("zero3", "ddp"), (OURS, "ddp")), 2: (("zero2", "fsdp2"), ("zero3", "zero2"), ("zero2", "zero3"))}
"""By the number of ranks that goes on: where the state comes from, and the strategy that takes it."""


def made(strategy: str) -> Recipe:
    return recipe(
        VIT,
        strategy,
        train={"max_steps": STEPS, "micro_batch": BATCH // 2, "global_batch": BATCH},
        checkpoint={"every_steps": SAVED, "keep": 9},
    )


def model_of(spec: RunSpec) -> Any:
    return build_model(spec, WholePlacement(torch.device("cpu"), torch.float32), torch.float32)


def theirs(name: str) -> str:
    """A parameter's name in ViTForImageClassification."""
    return name.replace("backbone.", "vit.", 1).replace("head.", "classifier.", 1)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> RunSpec:
    """Our run, uninterrupted."""
    return plan(made("zero2"), 2, tmp_path_factory.mktemp("foreign") / "whole")


@pytest.fixture(scope="module")
def program(whole: RunSpec) -> Path:
    """What the program leaves, from the weights with which our run begins."""
    directory = whole.run_dir.parent / "program"
    directory.mkdir()
    weights = {theirs(name): value.detach() for name, value in model_of(whole).named_parameters()}
    torch.save(weights, directory / "weights.pt")
    rates = OPTIMIZER["vit"]
    no_dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    job = {
        "config": {**SMALL, **no_dropout, "patch_size": 4, "image_size": 8, "num_labels": 10},
        "weights": str(directory / "weights.pt"),
        "directory": str(directory),
        "stages": STAGES,
        "batch": BATCH,
        "steps": SAVED,
        "total": STEPS,
        "warmup": 5,
        "lr": rates["lr"],
        "clip": rates["clip_grad"],
        "decay": 0.1,
    }
    (directory / "job.json").write_text(json.dumps(job))
    run_script("foreign_program.py", directory / "job.json", world=2)
    return directory


@pytest.fixture(scope="module")
def arrived(whole: RunSpec, program: Path) -> dict[tuple[str, str], RunSpec]:
    base = whole.run_dir.parent
    specs: dict[tuple[str, str], RunSpec] = {}
    write_spec(whole)
    for world in (2, 1):
        works = [Work(str(whole.run_dir), whole=True)] if world == 2 else []
        for source, strategy in ROUTES[world]:
            directory = program / source
            if source == OURS:
                checkpoint = whole.run_dir / "checkpoints" / f"step-{SAVED:06d}"
                directory = (checkpoint / f"global_step{SAVED}").rename(base / OURS)
            asked = made(strategy)
            tag, step = foreign.resolve(directory, asked, trust=False)
            spec = plan(asked, world, base / f"{source}-{strategy}")
            spec = spec.model_copy(update={"origin": tag, "origin_step": step})
            how = "zero2" if source == OURS else source
            assert foreign.check(spec)[0] == (
                f"goes on from step {SAVED}: weights and AdamW moments of 40 parameters from {tag} ({how} on 2 ranks) "
                f"are taken over by {strategy} on {world} {'rank' if world == 1 else 'ranks'}"
            )
            write_spec(spec)
            specs[source, strategy] = spec
            works.append(Work(str(spec.run_dir), whole=True, resave=True))
        run_together(works, world, base / f"start-{world}")
    return specs


@pytest.mark.parametrize("stage", STAGES)
def test_the_program_takes_our_first_steps(
    whole: RunSpec, program: Path, arrived: dict[tuple[str, str], RunSpec], stage: int
) -> None:
    losses = torch.load(program / f"zero{stage}.pt", weights_only=True)["losses"]
    assert furthest(losses, column(whole, "loss")[:SAVED]) <= 1e-6


@pytest.mark.parametrize("route", [route for routes in ROUTES.values() for route in routes], ids="-".join)
def test_state_and_steps_are_the_same(
    whole: RunSpec, program: Path, arrived: dict[tuple[str, str], RunSpec], route: tuple[str, str]
) -> None:
    spec, uninterrupted = arrived[route], column(whole, "loss")
    print("furthest", furthest(column(spec, "loss"), uninterrupted[SAVED:]))
    assert column(spec, "step") == list(range(SAVED + 1, STEPS + 1))
    assert furthest(column(spec, "loss"), uninterrupted[SAVED:]) <= 1e-6
    assert column(spec, "lr") == column(whole, "lr")[SAVED:]
    model = model_of(whole)
    state = read_state(spec.run_dir / "checkpoints" / f"step-{SAVED:06d}", group_names(model, whole))
    assert set(state.counts.values()) == {SAVED}
    if route[0] == OURS:
        return
    said: dict[str, dict[str, Tensor]] = torch.load(program / f"{route[0]}.pt", weights_only=True)["state"]
    names = [name for name, _ in model.named_parameters()]
    assert {theirs(name) for name in names} == set(said)
    for name in names:
        right = said[theirs(name)]
        assert torch.equal(state.weights[name](), right["weight"]), name
        assert state.moments[name].keys() == right.keys() - {"weight"}
        for kind, read in state.moments[name].items():
            assert torch.equal(read(), right[kind]), f"{name} {kind}"
