from __future__ import annotations

from pathlib import Path

import pytest
from plan_examples import CPU, FACTS, gpus

from zerofit.config.load import load_recipe, recipe_names
from zerofit.config.schema import Recipe
from zerofit.plan.build import make_plan
from zerofit.plan.spec import DataFacts


def facts_of(said: Recipe) -> DataFacts:
    """The embedded digits as they are; of other data, whose files are absent, invented ones."""
    if said.data.source == "digits":
        return FACTS
    train = max(10_000, 2 * said.train.global_batch)
    invented = {"classes": ("a", "b"), "train": train, "image_size": said.model.image_size or 224}
    return FACTS.model_copy(update=invented)


@pytest.mark.parametrize("name", recipe_names())
def test_every_shipped_recipe_plans(name: str) -> None:
    said = load_recipe(name)
    facts = facts_of(said)
    at_once = said.train.micro_batch
    possible = [n for n in (1, 2, 4, 8) if said.train.global_batch % (at_once * n) == 0]
    if said.strategy.name == "single":
        possible = [1]
    assert possible, "fits no machine of 1, 2, 4 or 8 GPUs"
    for ranks in possible:
        spec = make_plan(said, facts=facts, hardware=gpus(8), ranks=ranks, run_dir=Path("runs") / name)
        assert spec.batches.total_steps > 0
    if said.data.source == "digits":
        make_plan(said, facts=facts, hardware=CPU, ranks=possible[0], run_dir=Path("runs") / name)
