"""The models and recipes that the strategies are compared on, and their plans for a CPU."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from zerofit.config.data import Data
from zerofit.config.schema import LANGUAGE, Recipe
from zerofit.data.images import describe
from zerofit.plan.build import make_plan
from zerofit.plan.spec import Hardware, ImageFacts, RunSpec, TextFacts
from zerofit.tasks import TASKS

CPU = Hardware(device="cpu", count=1, name="CPU", memory_gib=8.0, capability=None, cpus=2)
STEPS = 30
GLOBAL_BATCH = 16

# A few thousand parameters in 2 blocks. 33 is odd, and class token and positions have one row: no even shards.
SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 33}
VIT = {"kind": "vit", "patch_size": 4, "shape": SMALL}
QWEN3 = {"model_type": "qwen3", "num_key_value_heads": 1, "head_dim": 8, **SMALL}
PATCH_LM = {"kind": "patch_lm", "patch_size": 4, "shape": QWEN3}
MODELS = {"vit": VIT, "patch_lm": PATCH_LM}
# Rates at which 30 steps learn something; clipping at values that some steps stay below.
OPTIMIZER = {"vit": {"lr": 1.5e-3, "clip_grad": 2.0}, "patch_lm": {"lr": 5e-3, "clip_grad": 0.8}}

STRATEGIES = ("single", "ddp", "fsdp2", "zero1", "zero2", "zero2+offload_optimizer", "zero3")


@dataclass(frozen=True)
class Case:
    """One run of the grid."""

    model: str
    strategy: str
    accumulation: int
    world: int

    @property
    def name(self) -> str:
        return f"{self.model}-{self.strategy}-a{self.accumulation}-w{self.world}"

    def plan(self, directory: Path) -> RunSpec:
        made = recipe(
            MODELS[self.model], strategy=self.strategy, train={"micro_batch": micro(self.accumulation, self.world)}
        )
        return plan(made, self.world, directory / self.name)


GRID = [
    Case(model, strategy, accumulation, world)
    for world in (1, 2)
    for model in MODELS
    for strategy in STRATEGIES
    for accumulation in (1, 4)
    if strategy != "single" or world == 1
]


def micro(accumulation: int, world: int) -> int:
    """The micro-batch that makes the global batch, the same in all cases."""
    return GLOBAL_BATCH // (accumulation * world)


def recipe(
    model: dict[str, Any], strategy: str | dict[str, Any] = "ddp", task: str = "classify", **sections: dict[str, Any]
) -> Recipe:
    """The recipe that all runs share, with fields of its sections replaced."""
    fields: dict[str, dict[str, Any]] = {
        "data": {"source": "digits"},
        "train": {"max_steps": STEPS, "micro_batch": micro(1, world=2), "global_batch": GLOBAL_BATCH},
        "optimizer": {"weight_decay": 0.1, "warmup": {"steps": 5}, **OPTIMIZER.get(model["kind"], {})},
        "evaluate": {"micro_batch": 60},
    }
    merged = {name: fields.get(name, {}) | sections.get(name, {}) for name in {**fields, **sections}}
    return Recipe.model_validate({"model": model, "strategy": strategy, "task": task, **merged})


def plan(made: Recipe, world: int, run_dir: Path, hardware: Hardware = CPU) -> RunSpec:
    """The resolved run on `world` ranks, of this CPU by default."""
    if made.task in LANGUAGE:
        facts: ImageFacts | TextFacts = TASKS[made.task].describe(made)
    else:
        facts = _facts(made.images, made.image_model.image_size)
    return make_plan(made, facts=facts, hardware=hardware, ranks=world, run_dir=run_dir)


@cache
def _facts(data: Data, image_size: int | None) -> ImageFacts:
    return describe(data, image_size, 0)


def furthest(values: list[float], right: list[float]) -> float:
    """Largest relative deviation from the right values."""
    return max(abs(value - one) / abs(one) for value, one in zip(values, right, strict=True))
