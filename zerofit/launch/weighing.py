"""The plans among which `auto` chooses, each with what formulas, or a step that is played through, say of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from pydantic import ValidationError

from zerofit.config.errors import UserError
from zerofit.config.strategy import AUTO, REPLICATED, parse_strategy
from zerofit.launch.alternatives import row_of, short_of, shorts
from zerofit.launch.predicting import Timed
from zerofit.plan.auto import micro_batches
from zerofit.plan.build import make_plan
from zerofit.plan.choice import Row
from zerofit.plan.closed_form import estimate_memory
from zerofit.plan.fitting import fit, overall
from zerofit.plan.prediction import Memory, Prediction, Speed
from zerofit.plan.spec import NamedStrategy, RunSpec, named
from zerofit.plan.strategy import Chosen, resolve_strategy
from zerofit.predict.choose import RECOMPUTED
from zerofit.predict.rates import rates_of
from zerofit.predict.seen import Counted, Seen, counted
from zerofit.predict.speed import speed


@dataclass
class Weighed:
    """A plan, and what is expected of it."""

    spec: RunSpec
    memory: Memory
    """By formulas, corrected by what was played of the same strategy; or played."""
    counted: Counted | None
    """What its micro-batches take by formulas; null: no speed is predicted."""
    speed: Speed | None = None
    played: bool = False
    """Whether its step was played through, or could not be."""

    @property
    def kind(self) -> tuple[str, str]:
        """Strategy and activation checkpointing."""
        return short_of(self.spec.strategy), self.spec.strategy.activation_checkpointing


@dataclass
class Scales:
    """All plans of a recipe, weighed by formulas, and step by step by more."""

    spec: RunSpec
    """A plan of the recipe, of whatever strategy and micro-batch."""
    host_gib: float | None
    here: bool
    """Whether it is for this machine."""
    weighed: list[Weighed] = field(default_factory=list)
    refused: list[Row] = field(default_factory=list)
    """Plans that the recipe cannot have."""
    timing: Timed | None = None
    """What has played steps of them."""
    _played: list[tuple[Weighed, Seen]] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Weigh by formulas. Raises Unpredicted where no sizes are at hand, and UserError as `fit` does."""
        rates = rates_of(self.spec.hardware, self.spec.batches.ranks)
        for spec in self._plans():
            timed = rates is not None and spec.grpo is None and not _extracts(spec)
            memory = estimate_memory(spec)
            self.weighed.append(Weighed(spec, memory, counted(spec, rates) if timed and rates is not None else None))
        self._time()
        self._drop_useless()

    def rows(self, *, hopeful: bool = False) -> list[Row]:
        """In the order of `weighed`; with `hopeful` as if formulas were as good as a step that is played through."""
        return [self._row(one, hopeful) for one in self.weighed]

    def play(self, one: Weighed, timing: Timed) -> None:
        """Play its step through, and learn from it for the others."""
        before, self.timing = one.memory, timing
        one.memory, one.played = timing.closest(one.spec), True
        ratio = one.memory.peak_gib / before.peak_gib
        for other in self.weighed:
            if not other.played and other.kind == one.kind:
                peak = round(other.memory.peak_gib * ratio, 3)
                other.memory = other.memory.model_copy(update={"peak_gib": peak})
        seen = timing.seen(one.spec)
        if seen is not None and one.counted is not None:
            self._played.append((one, seen))
        self._time()

    def prediction(self, one: Weighed) -> Prediction:
        """Its own. Raises UserError as `fit` does."""
        found = fit(one.memory, one.spec, self.host_gib)
        return Prediction(peak_gib=one.memory.peak_gib, memory=one.memory, fit=found, speed=one.speed)

    def _row(self, one: Weighed, hopeful: bool) -> Row:
        memory = one.memory.model_copy(update={"exact": one.memory.exact or hopeful})
        found = fit(memory, one.spec, self.host_gib)
        verdict = overall(found)
        speed = None if one.speed is None or verdict == "does not fit" else one.speed.samples_s
        return row_of(
            one.spec,
            peak_gib=round(one.memory.peak_gib, 2),
            needed_gib=found.needed_gib,
            host_gib=round(found.host_needed_gib, 1),
            verdict=verdict,
            samples_s=speed,
            exact=one.memory.exact,
        )

    def _seen(self, one: Weighed, formula: Counted) -> Seen:
        """Of its micro-batches: as played, or by formulas that what was played nearest has corrected."""
        exact = None if self.timing is None else self.timing.seen(one.spec)
        if exact is not None or not self._played:
            return exact or formula

        def apart(other: Weighed) -> tuple[bool, bool]:
            ours, theirs = one.spec.strategy, other.spec.strategy
            replicated = (ours.name in REPLICATED) != (theirs.name in REPLICATED)
            return ours.activation_checkpointing != theirs.activation_checkpointing, replicated

        nearest, seen = min(self._played, key=lambda played: apart(played[0]))
        assert nearest.counted is not None
        return formula.scaled(seen, nearest.counted)

    def _time(self) -> None:
        rates = rates_of(self.spec.hardware, self.spec.batches.ranks)
        for one in self.weighed:
            if one.counted is not None and rates is not None:
                one.speed = speed(one.spec, self._seen(one, one.counted), rates)

    def _drop_useless(self) -> None:
        """Every other block is computed again where that makes the difference alone."""
        if len({one.kind[1] for one in self.weighed}) == 1:
            return
        rows = self.rows(hopeful=True)
        short = {
            (row.strategy, row.micro_batch)
            for row in rows
            if (row.activation_checkpointing, row.verdict) == ("none", "does not fit")
        }

        def useful(row: Row) -> bool:
            return row.verdict != "does not fit" and (row.strategy, row.micro_batch) in short

        self.weighed = [
            one
            for one, row in zip(self.weighed, rows, strict=True)
            if row.activation_checkpointing != "selective" or useful(row)
        ]

    def _plans(self) -> Iterator[RunSpec]:
        recipe, ranks = self.spec.recipe, self.spec.batches.ranks
        said = recipe.train.micro_batch
        tried = sizes(micro_batches(recipe.train.global_batch, ranks)) if said == AUTO else (said,)
        for chosen in self._strategies():
            reason, able = "", False
            for micro in tried:
                try:
                    yield self._plan(chosen, micro)
                    able = True
                except UserError as why:
                    reason = str(why).splitlines()[0]
            if not able:
                self._refuse(chosen.strategy, tried[0], reason)

    def _plan(self, chosen: Chosen, micro: int) -> RunSpec:
        spec = self.spec
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
            here=self.here,
            like=spec,
        )

    def _strategies(self) -> Iterator[Chosen]:
        """Each with each activation checkpointing that may be chosen."""
        said = self.spec.recipe.strategy
        for chosen in [resolve_strategy(self.spec.recipe)] if said.name != AUTO else self._named():
            free = said.activation_checkpointing == AUTO and said.name is not None and not _extracts(self.spec)
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
                ours = row_of(self.spec, reason=reason)
                self.refused.append(ours.model_copy(update={"strategy": short}))

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


def sizes(possible: tuple[int, ...]) -> tuple[int, ...]:
    """Of these micro-batches the largest up to each power of two, and the two largest."""
    if not possible:
        return (1,)
    powers = (2**place for place in range(possible[-1].bit_length() + 1))
    return tuple(sorted({*(max(one for one in possible if one <= power) for power in powers), *possible[-2:]}))


def _extracts(spec: RunSpec) -> bool:
    """Whether features are computed once."""
    return spec.recipe.probe is not None and spec.recipe.probe.features == "cached"
