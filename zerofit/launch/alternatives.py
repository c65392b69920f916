"""The strategies that a recipe could have, each planned: its own, and those that are worth a look."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from zerofit.config.errors import UserError
from zerofit.config.schema import Recipe
from zerofit.config.strategy import ZERO_STAGE, Strategy, parse_strategy
from zerofit.launch.asked import Machine
from zerofit.launch.recipe import override
from zerofit.plan.anatomy import anatomy_of
from zerofit.plan.auto import settled
from zerofit.plan.build import make_plan
from zerofit.plan.choice import Row
from zerofit.plan.prediction import Unpredicted
from zerofit.plan.spec import RunSpec
from zerofit.plan.strategy import resolve_strategy
from zerofit.predict.choose import OFFLOADED, WHOLE

MUCH = 0.2
"""Share of a model's elements that are trained, from which on their optimizer's state is worth to be offloaded."""


@dataclass(frozen=True)
class Alternative:
    """A strategy, planned or refused."""

    short: str
    """`zero2+offload_optimizer`."""
    own: bool
    """Whether it is the recipe's."""
    spec: RunSpec | None
    """Null: refused."""
    reason: str | None = None
    """Why."""


def short_of(strategy: Strategy) -> str:
    """Its short form; of what lies on NVMe with that said."""
    offload = strategy.offload
    if offload.params is not None:
        where = offload.params
        return f"{strategy.name}+offload_all" + (" (nvme)" if where == "nvme" else "")
    if offload.optimizer is not None:
        return f"{strategy.name}+offload_optimizer" + (" (nvme)" if offload.optimizer == "nvme" else "")
    return str(strategy.name)


def row_of(spec: RunSpec, **found: Any) -> Row:
    """The row of a plan in a choice, with what was `found` of it."""
    return Row(
        strategy=short_of(spec.strategy),
        micro_batch=spec.batches.micro,
        accumulation=spec.batches.accumulation,
        activation_checkpointing=spec.strategy.activation_checkpointing,
        **found,
    )


def alternatives(spec: RunSpec, machine: Machine, nproc: int | None = None) -> list[Alternative]:
    """The recipe's own strategy, as planned, and the others, on the same machine."""
    own, base = short_of(spec.strategy), settled(spec)
    found = [] if own in (*WHOLE, *OFFLOADED) else [Alternative(own, True, spec)]
    for short in shorts(spec):
        found.append(Alternative(short, True, spec) if short == own else under(spec, base, short, machine, nproc))
    return found


def shorts(spec: RunSpec) -> list[str]:
    """The others: offload of optimizer state where there is much of it; of weights always."""
    try:
        anatomy = anatomy_of(spec)
    except Unpredicted:
        return [*WHOLE, *OFFLOADED]
    own, much = short_of(spec.strategy), anatomy.trains >= MUCH * anatomy.parameters
    return [short for short in (*WHOLE, *OFFLOADED) if much or short == own or not short.endswith("_optimizer")]


def under(spec: RunSpec, base: Recipe, short: str, machine: Machine, nproc: int | None = None) -> Alternative:
    """The plan of `base` under the strategy `short`; data, origin and versions are those of `spec`."""
    words = [f"strategy={short}"]
    if str(parse_strategy(short)["name"]) not in ZERO_STAGE:
        words.append("strategy.deepspeed=null")  # says nothing of the others
    try:
        recipe = override(base, words)
        chosen = resolve_strategy(recipe)
        planned = make_plan(
            recipe,
            facts=spec.data,
            hardware=machine.hardware,
            ranks=machine.ranks(chosen, nproc, recipe.train),
            run_dir=spec.run_dir,
            origin=spec.origin,
            chosen=chosen,
            here=machine.here,
            like=spec,
        )
    except UserError as why:
        return Alternative(short, False, None, str(why).splitlines()[0])
    return Alternative(short, False, planned)
