"""What DeepSpeed is given for recipes."""

from __future__ import annotations

from typing import Any

from plan_examples import CPU, FACTS, recipe

from zerofit.config.schema import Recipe
from zerofit.plan.batch import make_batches
from zerofit.plan.deepspeed import make_deepspeed
from zerofit.plan.spec import Hardware
from zerofit.plan.strategy import resolve_strategy


def config_of(said: Recipe, precision: str = "fp32", hardware: Hardware = CPU, ranks: int = 1) -> dict[str, Any]:
    config = make_deepspeed(said, resolve_strategy(said), make_batches(said, FACTS, ranks), precision, hardware)
    assert config is not None
    return config


def strategy(name: str, offload: dict[str, Any] | None = None, **fields: Any) -> Recipe:
    return recipe(strategy={"name": name, "offload": offload or {}, **fields})
