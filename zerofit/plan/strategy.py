"""From the strategy that a recipe says, by name or by a file of accelerate or DeepSpeed, to the one that is used."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from zerofit.config.errors import UserError
from zerofit.config.schema import Recipe
from zerofit.config.strategy import AUTO, Strategy, StrategyName
from zerofit.plan.accelerate_file import read_accelerate
from zerofit.plan.deepspeed_file import read_deepspeed, whole_strategy
from zerofit.plan.file_words import Said
from zerofit.plan.spec import NamedStrategy, named

STAND_IN: StrategyName = "ddp"
BESIDE = ("precision", "activation_checkpointing", "compile")
"""Fields that a recipe may give beside a file: where that says nothing of them, or the same."""
SIZES = ("train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps")
"""Settings of DeepSpeed that follow from the recipe and the number of ranks."""


@dataclass(frozen=True)
class Chosen:
    """The strategy that is used, and what its file says of the machine."""

    strategy: NamedStrategy
    """Without a path: what files say is in it."""
    where: str = "strategy.deepspeed: "
    """How messages on DeepSpeed's settings begin."""
    ranks: int | None = None
    """How many the file asks for; null: it does not say."""
    machines: int = 1
    """Machines that the ranks are on."""
    starter: str | None = None
    """How the file has ranks on other machines started: `pdsh from the hosts of /etc/hosts.txt`."""
    cpu: bool = False
    """Whether the file asks for a CPU."""
    gpus: str | None = None
    """The GPUs that it names, as CUDA_VISIBLE_DEVICES does; null: all."""


def resolve_strategy(recipe: Recipe) -> Chosen:
    """What `strategy` of a recipe stands for. Files are read here and nowhere else.

    What is to be chosen is `STAND_IN` until it is: what a rule takes, as on a CPU, where nothing is predicted.

    Raises UserError, one line, for a file that cannot be read, a setting that zerofit does not have, and one that
    contradicts what the recipe says beside.
    """
    strategy = recipe.strategy
    if strategy.accelerate is not None:
        file = read_accelerate(strategy.accelerate, recipe.model)
        return Chosen(
            _with(strategy, file.fields, file.deepspeed, file.where),
            file.settings,
            file.ranks,
            file.machines,
            file.starter,
            file.cpu,
            file.gpus,
        )
    if strategy.name == AUTO:
        return Chosen(named(strategy, name=STAND_IN))
    if strategy.deepspeed is None:
        return Chosen(named(strategy))
    settings, where = read_deepspeed(strategy.deepspeed)
    if strategy.name is not None:
        return Chosen(named(strategy.model_copy(update={"deepspeed": settings})), where)
    return Chosen(_with(strategy, whole_strategy(settings, where), settings, where), where)


def _with(strategy: Strategy, said: Said, settings: Mapping[str, Any] | None, where: str) -> NamedStrategy:
    """The strategy of a file, with what the recipe gives beside."""
    beside = strategy.model_dump(include=set(BESIDE))
    usual = {field: Strategy.model_fields[field].default for field in BESIDE}
    fields: dict[str, Any] = {field: word.value for field, word in said.items()}
    if strategy.activation_checkpointing == AUTO:
        fields = {"activation_checkpointing": "none"} | fields
    for field, asked in beside.items():
        if field not in said:
            fields.setdefault(field, asked)
        elif asked not in (usual[field], said[field].value):
            word = said[field]
            raise UserError(
                f"{where}{word.key} is {word.written!r}, but strategy.{field} is {asked!r}: change one, or leave the "
                f"recipe's out"
            )
    try:
        return NamedStrategy.model_validate({**fields, "deepspeed": settings})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        reason = first.get("ctx", {}).get("error", first["msg"])
        raise UserError(f"{where}{reason}") from None


def planned_again(strategy: NamedStrategy) -> Chosen:
    """A run's strategy, for a plan on other ranks: what its settings said of sizes was right for those of then."""
    if not isinstance(strategy.deepspeed, dict):
        return Chosen(strategy)
    left = {key: value for key, value in strategy.deepspeed.items() if key not in SIZES}
    return Chosen(strategy.model_copy(update={"deepspeed": left}))
