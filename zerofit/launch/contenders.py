"""The plans among which auto chooses: strategies x micro-batches x activation checkpointing, as far as they may be."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from pydantic import ValidationError

from zerofit.config.errors import UserError
from zerofit.config.strategy import AUTO, parse_strategy
from zerofit.launch.alternatives import row_of, short_of, shorts
from zerofit.plan.auto import micro_batches
from zerofit.plan.build import make_plan
from zerofit.plan.choice import Row
from zerofit.plan.spec import NamedStrategy, RunSpec, named
from zerofit.plan.strategy import Chosen, resolve_strategy
from zerofit.predict.choose import RECOMPUTED


@dataclass
class Contenders:
    """Of a recipe on so many ranks."""

    spec: RunSpec
    """A plan of it, of whatever strategy and micro-batch."""
    here: bool
    """Whether it is for this machine."""
    refused: list[Row] = field(default_factory=list)
    """What the recipe or the machine cannot have, once `plans` has been gone through."""

    def plans(self) -> Iterator[RunSpec]:
        """Strategies in the order of what they cost, micro-batches rising."""
        recipe, ranks = self.spec.recipe, self.spec.batches.ranks
        said = recipe.train.micro_batch
        tried = sizes(micro_batches(recipe.train.global_batch, ranks)) if said == AUTO else (said,)
        for chosen in self._strategies():
            reason, able = "", False
            for micro in tried:
                try:
                    yield with_strategy(self.spec, chosen, micro, self.here)
                    able = True
                except UserError as why:
                    reason = str(why).splitlines()[0]
            if not able:
                self._refuse(chosen.strategy, tried[0], reason)

    def _strategies(self) -> Iterator[Chosen]:
        """Each with each activation checkpointing that may be chosen."""
        said = self.spec.recipe.strategy
        free = said.activation_checkpointing == AUTO and said.name is not None and not extracts(self.spec)
        for chosen in self._named() if said.name == AUTO else [resolve_strategy(self.spec.recipe)]:
            for recomputed in RECOMPUTED if free else (chosen.strategy.activation_checkpointing,):
                strategy = chosen.strategy.model_copy(update={"activation_checkpointing": recomputed})
                yield replace(chosen, strategy=strategy)

    def _named(self) -> Iterator[Chosen]:
        said = self.spec.recipe.strategy
        for short in shorts(self.spec):
            fields = parse_strategy(short)
            if fields["name"] == "ddp" and self.spec.batches.ranks == 1:
                fields["name"] = "single"
            fields["offload"] = {"pin_memory": said.offload.pin_memory, **fields.get("offload", {})}
            try:
                yield Chosen(named(said, **fields))
            except ValidationError as error:
                reason = str(error.errors(include_url=False)[0].get("ctx", {}).get("error", "refused"))
                self.refused.append(row_of(self.spec, reason=reason).model_copy(update={"strategy": short}))

    def _refuse(self, strategy: NamedStrategy, micro: int, reason: str) -> None:
        share = self.spec.batches.global_batch // self.spec.batches.ranks
        row = Row(
            strategy=short_of(strategy),
            micro_batch=micro,
            accumulation=share // micro,
            activation_checkpointing=strategy.activation_checkpointing,
            reason=reason,
        )
        if all((one.strategy, one.reason) != (row.strategy, row.reason) for one in self.refused):
            self.refused.append(row)


def with_strategy(spec: RunSpec, chosen: Chosen, micro: int, here: bool) -> RunSpec:
    """The plan of the same run under that strategy, with that micro-batch. Raises UserError."""
    return make_plan(
        spec.recipe,
        facts=spec.data,
        hardware=spec.hardware,
        ranks=spec.batches.ranks,
        run_dir=spec.run_dir,
        origin=spec.origin,
        origin_step=spec.origin_step,
        trust=spec.trust,
        chosen=chosen,
        micro=micro,
        here=here,
        like=spec,
    )


def sizes(possible: tuple[int, ...]) -> tuple[int, ...]:
    """Of these micro-batches, which rise, the largest up to each power of two, and the two largest."""
    powers = (2**place for place in range(possible[-1].bit_length() + 1))
    return tuple(sorted({*(max(one for one in possible if one <= power) for power in powers), *possible[-2:]}))


def extracts(spec: RunSpec) -> bool:
    """Whether features are computed once, and nothing is trained around them."""
    return spec.recipe.probe is not None and spec.recipe.probe.features == "cached"
