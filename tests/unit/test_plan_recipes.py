from __future__ import annotations

from pathlib import Path

import pytest
from plan_examples import CAD_FACTS, CPU, FACTS, TEXT_FACTS, gpus

from zerofit.config.load import load_job, recipe_names
from zerofit.config.schema import LANGUAGE, Recipe
from zerofit.plan.build import make_plan
from zerofit.plan.spec import ImageFacts, TextFacts

STAGES = [(name, number) for name in recipe_names() for number in range(len(load_job(name).stages))]


def facts_of(said: Recipe) -> ImageFacts | TextFacts:
    """The embedded digits as they are; of other data, whose files are absent, invented ones."""
    if said.task in LANGUAGE:
        return TEXT_FACTS.model_copy(update={"longest": min(said.text.max_length, 300)})
    if said.task == "cad":
        return CAD_FACTS
    if said.data.source == "digits":
        return FACTS
    train = max(10_000, 2 * said.train.global_batch)
    invented = {"classes": ("a", "b"), "train": train, "image_size": said.image_model.image_size or 224}
    return FACTS.model_copy(update=invented)


@pytest.mark.parametrize(("name", "number"), STAGES)
def test_every_shipped_recipe_plans(name: str, number: int) -> None:
    said = load_job(name).stages[number]
    facts = facts_of(said)
    at_once = 1 if said.train.micro_batch == "auto" else said.train.micro_batch
    possible = [n for n in (1, 2, 4, 8) if said.train.global_batch % (at_once * n) == 0]
    if said.strategy.name == "single":
        possible = [1]
    assert possible, "fits no machine of 1, 2, 4 or 8 GPUs"
    for ranks in possible:
        spec = make_plan(said, facts=facts, hardware=gpus(8), ranks=ranks, run_dir=Path("runs") / name)
        assert spec.batches.total_steps > 0
    if said.data.source == "digits":
        make_plan(said, facts=facts, hardware=CPU, ranks=possible[0], run_dir=Path("runs") / name)


@pytest.mark.parametrize(("strategy", "stage"), [("ddp", None), ("zero2", 2), ("zero3", 3), ("zeropp", 3)])
def test_vit_huge_plans_under_its_other_strategies(strategy: str, stage: int | None) -> None:
    (said,) = load_job("vit-huge-food101", [f"strategy={strategy}"]).stages
    spec = make_plan(said, facts=facts_of(said), hardware=gpus(8), ranks=8, run_dir=Path("runs/vit"))
    assert spec.precision == "bf16"
    if stage is None:
        assert spec.deepspeed is None
        return
    assert spec.deepspeed is not None
    zero = spec.deepspeed["zero_optimization"]
    assert (zero["stage"], zero.get("zero_quantized_weights", False)) == (stage, strategy == "zeropp")
