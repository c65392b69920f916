"""A run that was cut off and goes on in fresh processes takes the very steps that it would have taken."""

from __future__ import annotations

import shutil
from typing import Any

import pytest
import torch
from cases import VIT, furthest, plan, recipe
from starts import Work, column, outcome_of, run_together

from zerofit.config.schema import Checkpoint, Recipe
from zerofit.plan.files import write_spec
from zerofit.plan.spec import RunSpec

STRATEGIES = ("ddp", "fsdp2", "zero2", "zero3")
CUT = "interrupted amid the validation of that step"
STEPS, SAVED = 12, 7  # epochs of 5 steps: saved amid the second, resumed through the third

Shown = dict[str, Any]


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Shown, Shown]]:
    """What each run showed, uninterrupted and resumed."""
    directory = tmp_path_factory.mktemp("resume")
    specs = {strategy: plan(random_recipe(strategy), 2, directory / strategy) for strategy in STRATEGIES}
    for spec in specs.values():
        write_spec(spec)
    made = random_recipe("ddp")
    validates = {"evaluate": made.evaluate.model_copy(update={"every_steps": SAVED})}
    cut = plan(made.model_copy(update={"checkpoint": Checkpoint(), **validates}), 2, directory / CUT)
    write_spec(cut)
    begun = [Work(str(spec.run_dir), whole=True) for spec in specs.values()]
    run_together([Work(str(cut.run_dir), whole=True, ask="evaluation, batch 1"), *begun], 2, directory / "start")
    assert outcome_of(cut) == {"stopped": True, "fused_calls": 0}
    assert [path.name for path in (cut.run_dir / "checkpoints").iterdir()] == [f"step-{SAVED:06d}"]
    first = {strategy: figures(spec) for strategy, spec in specs.items()}
    for spec in specs.values():
        shutil.rmtree(spec.run_dir / "checkpoints" / f"step-{STEPS:06d}")
    first[CUT], specs = first["ddp"], {CUT: cut, **specs}
    works = []
    for spec in specs.values():
        checkpoints = spec.run_dir / "checkpoints"
        works.append(Work(str(spec.run_dir), whole=True, resume=str(checkpoints / f"step-{SAVED:06d}")))
    run_together(works, 2, directory / "resumed")
    return {strategy: (first[strategy], figures(spec)) for strategy, spec in specs.items()}


def random_recipe(strategy: str) -> Recipe:
    """Everything that draws random numbers, drawn in worker processes and in the model; two micro-batches a step."""
    return recipe(
        {**VIT, "dropout": 0.2},
        strategy,
        data={
            "limit": 90,
            "workers": 1,
            "augment": {"crop_scale": (0.6, 1.0), "flip": 0.5, "randaugment": (1, 5), "mixup": 0.2, "cutmix": 1.0},
        },
        train={"micro_batch": 4, "max_steps": STEPS, "label_smoothing": 0.1},
        checkpoint={"every_steps": SAVED},
    )


def figures(spec: RunSpec) -> Shown:
    """Its records, its result, and each rank's random state at the end."""
    last = spec.run_dir / "checkpoints" / f"step-{STEPS:06d}"
    states = [torch.load(last / f"rng_state_{rank}.pth", weights_only=False)["cpu"].tolist() for rank in range(2)]
    records = {name: column(spec, name) for name in ("step", "loss", "grad_norm", "lr")}
    if column(spec, "val_loss"):  # the validation at the end has a record of its own
        assert records["step"].pop() == STEPS
    return {**records, "test": outcome_of(spec)["test"], "random": states}


@pytest.mark.parametrize("strategy", [CUT, *STRATEGIES])
def test_resumes_as_if_never_stopped(shown: dict[str, tuple[Shown, Shown]], strategy: str) -> None:
    whole, resumed = shown[strategy]
    assert whole["step"] == resumed["step"] == list(range(1, STEPS + 1))
    assert resumed["loss"][:SAVED] == whole["loss"][:SAVED]  # kept, not taken again
    assert furthest(resumed["loss"], whole["loss"]) < 1e-6  # measured: 0.0 under every strategy
    assert furthest(resumed["grad_norm"], whole["grad_norm"]) < 1e-6
    assert resumed["lr"] == whole["lr"]
    assert resumed["test"] == whole["test"]
    assert resumed["random"] == whole["random"]
    assert whole["random"][0] != whole["random"][1]  # each rank drops other activations
