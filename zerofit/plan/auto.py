"""Fields of a recipe that say auto: whether there are any, what a rule makes of them, and a recipe without them."""

from __future__ import annotations

from zerofit.config.errors import UserError
from zerofit.config.schema import Recipe
from zerofit.config.strategy import AUTO, Strategy
from zerofit.plan.batch import make_batches
from zerofit.plan.grpo import make_sizes
from zerofit.plan.spec import ImageFacts, NamedStrategy, RunSpec, TextFacts

USUAL = 32
"""The largest micro-batch that the rule takes: where nothing is predicted, as on a CPU."""


def is_open(recipe: Recipe) -> bool:
    """Whether there is something to choose; activation checkpointing alone is none where nothing else is."""
    return recipe.strategy.name == AUTO or recipe.train.micro_batch == AUTO


def divisors(of: int) -> tuple[int, ...]:
    """Rising."""
    small = [one for one in range(1, int(of**0.5) + 1) if of % one == 0]
    return tuple(sorted({*small, *(of // one for one in small)}))


def micro_batches(global_batch: int, ranks: int) -> tuple[int, ...]:
    """Micro-batches of which `ranks` ranks make the global batch, rising; none where no number of them does."""
    share, rest = divmod(global_batch, ranks)
    return () if rest else divisors(share)


def micro_by_rule(recipe: Recipe, facts: ImageFacts | TextFacts, ranks: int, most: int = USUAL) -> int:
    """The recipe's micro-batch; of an open one the largest possible up to `most`.

    1 where none is possible, which the plan refuses.
    """
    if recipe.train.micro_batch != AUTO:
        return recipe.train.micro_batch
    for micro in reversed(micro_batches(recipe.train.global_batch, ranks)):
        if micro <= most and _suits(recipe, facts, ranks, micro):
            return micro
    return 1


def _suits(recipe: Recipe, facts: ImageFacts | TextFacts, ranks: int, micro: int) -> bool:
    """Whether generations of the task grpo come out whole, too."""
    try:
        make_sizes(recipe, facts, make_batches(recipe, facts, ranks, micro))
    except UserError:
        return False
    return True


def nearest_micro(recipe: Recipe, ranks: int, before: int) -> int:
    """The largest micro-batch up to `before` of which `ranks` ranks make the global batch, if there is one.

    Else, and where BatchNorm sees micro-batches, so that the numbers would be others, `before`.
    """
    if recipe.probe is not None and recipe.probe.batch_norm:
        return before
    return max((one for one in micro_batches(recipe.train.global_batch, ranks) if one <= before), default=before)


def settled(spec: RunSpec) -> Recipe:
    """The run's recipe with what its plan has made of auto, and of a strategy's file, so that it can be changed.

    What a file says besides the strategy's own fields falls away.
    """
    recipe = spec.recipe
    train, strategy = recipe.train, settled_strategy(recipe.strategy, spec.strategy)
    if train.micro_batch == AUTO:
        train = train.model_copy(update={"micro_batch": spec.batches.micro})
    return recipe.model_copy(update={"train": train, "strategy": strategy})


def settled_strategy(said: Strategy, used: NamedStrategy) -> Strategy:
    """`said` as it is used."""
    if said.name in (None, AUTO):
        return Strategy.model_validate(used.model_dump() | {"deepspeed": None})
    if said.activation_checkpointing == AUTO:
        return said.model_copy(update={"activation_checkpointing": used.activation_checkpointing})
    return said
