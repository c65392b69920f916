"""`zerofit plan --search`: which machines a recipe fits, and with which strategy."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from zerofit.config.errors import UserError
from zerofit.config.load import load_job
from zerofit.config.schema import Recipe
from zerofit.config.strategy import AUTO
from zerofit.launch.alternatives import Alternative, short_of, shorts, under
from zerofit.launch.asked import Asked, Machine, size
from zerofit.launch.planning import Staged, chosen_stages, staged_plan
from zerofit.launch.predicting import closest
from zerofit.plan.answer import Cell, Search
from zerofit.plan.auto import is_open, settled
from zerofit.plan.closed_form import estimate_memory
from zerofit.plan.fitting import fit, overall
from zerofit.plan.prediction import Fit, Memory, Prediction, Unpredicted
from zerofit.plan.spec import RunSpec
from zerofit.predict.choose import ORDER
from zerofit.report.outlook import grid

GPUS, MEMORY = "gpus", "gpu-memory"
COUNTS, SIZES = (1, 2, 4, 8), (11.0, 24.0, 48.0, 80.0, 141.0)
"""What is tried where the words do not say."""
MOST = 64
"""Numbers of cards, and sizes, that are tried at most."""


def search(
    source: str,
    words: Sequence[str] = (),
    *,
    asked: Asked,
    stage: int | None = None,
    quick: bool = False,
    draft: Callable[[str], None] = lambda text: None,
) -> tuple[Search, str]:
    """The grid that `gpus=1..8` and `gpu-memory=11,24` among the words ask for, as it is and in words.

    The other words are overrides. Of a recipe with stages the one of `stage` is planned. By formulas; where their
    error decides, and unless `quick`, by steps that are played through. Raises UserError.
    """
    counts, sizes, overrides = axes(words)
    job = load_job(source, overrides)
    if stage is None and len(job.stages) > 1:
        raise UserError(f"--search: {source} has {len(job.stages)} stages: say which with --stage N")
    (recipe,) = chosen_stages(source, job.stages, stage)
    first = staged_plan(recipe, _asked(asked, counts[-1], sizes[-1]), None, follows=recipe is not job.stages[0])
    looked = Look(first, asked)

    def searched(exactly: bool) -> Search:
        cells = tuple(looked.cell(count, memory, exactly) for count in counts for memory in sizes)
        return Search(recipe=source, name=str(recipe.name), cells=cells)

    found = searched(False)
    if not quick:
        draft(grid(found))
        found = searched(True)
    return found, "\n".join([grid(found), *([] if first.assumed is None else [first.assumed])])


@dataclass
class Look:
    """What was planned and played through before: the number of ranks decides on that, and not the card's size."""

    first: Staged
    asked: Asked
    planned: dict[tuple[str, int], Alternative] = field(default_factory=dict)
    played: dict[tuple[str, int], Memory] = field(default_factory=dict)

    def cell(self, count: int, memory: float, exactly: bool) -> Cell:
        """The first strategy that fits `count` cards of `memory` GiB; else the first that is tight."""
        tight: Cell | None = None
        reasons: list[str] = []
        for short in sorted(self._shorts(count), key=_cost):
            one = self._planned(short, count)
            if one.spec is None:
                reasons.append(str(one.reason))
                continue
            card = one.spec.hardware.model_copy(update={"memory_gib": memory})
            spec = one.spec.model_copy(update={"hardware": card})
            try:
                known = estimate_memory(spec)
                found = self._fit(known, spec)
                if exactly and overall(found) != "fits" and self._close(known, spec):
                    known = self._played(one, count)
                    found = self._fit(known, spec)
            except (Unpredicted, UserError) as why:
                reasons.append(str(why))
                continue
            made = Prediction(peak_gib=known.peak_gib, memory=known, fit=found)
            here = Cell(
                gpus=count,
                memory_gib=memory,
                ranks=spec.batches.ranks,
                verdict=overall(found),
                strategy=short,
                prediction=made,
            )
            if here.verdict == "fits":
                return here
            if here.verdict == "tight" and tight is None:
                tight = here
        if tight is not None:
            return tight
        reason = reasons[0] if len(reasons) == len(self._shorts(count)) else None
        return Cell(
            gpus=count,
            memory_gib=memory,
            ranks=None,
            verdict="does not fit",
            strategy=None,
            prediction=None,
            reason=reason,
        )

    def _shorts(self, count: int) -> list[str]:
        own = short_of(self.first.spec.strategy)
        every = dict.fromkeys([*shorts(self.first.spec), *([own] if own in ORDER else [])])
        if count > 1:
            every.pop("single", None)
        return list(every)

    def _planned(self, short: str, count: int) -> Alternative:
        if (short, count) not in self.planned:
            spec = self.first.spec
            cards = self.first.machine.hardware.model_copy(update={"count": count})
            machine = Machine(cards, self.first.machine.host_gib, here=False)
            self.planned[short, count] = under(spec, _easiest(spec), short, machine)
        return self.planned[short, count]

    def _close(self, known: Memory, spec: RunSpec) -> bool:
        """Whether it would fit if formulas were as good as a step that is played through."""
        best = known.model_copy(update={"exact": True})
        return overall(self._fit(best, spec)) == "fits"

    def _fit(self, memory: Memory, spec: RunSpec) -> Fit:
        machine = self.first.machine
        return fit(memory, spec, machine.host_gib, machine.calibration)

    def _played(self, one: Alternative, count: int) -> Memory:
        key = (one.short, count)
        if key not in self.played:
            assert one.spec is not None
            self.played[key] = closest(one.spec)
        return self.played[key]


def _easiest(spec: RunSpec) -> Recipe:
    """The run's recipe with what it leaves to the planner as it needs least: what fits at all is asked for."""
    said, recipe = spec.recipe, settled(spec)
    train, strategy = recipe.train, recipe.strategy
    if said.train.micro_batch == AUTO:
        train = train.model_copy(update={"micro_batch": 1})
    if is_open(said) and said.strategy.activation_checkpointing == AUTO:
        strategy = strategy.model_copy(update={"activation_checkpointing": "full"})
    return recipe.model_copy(update={"train": train, "strategy": strategy})


def axes(words: Sequence[str]) -> tuple[list[int], list[float], list[str]]:
    """Numbers of cards and sizes in GiB, both rising, and the words that are neither. Raises UserError."""
    counts, sizes, others = list(COUNTS), list(SIZES), []
    for word in words:
        name, _, value = word.partition("=")
        if name == GPUS:
            counts = sorted(set(_counts(value)))
        elif name == MEMORY:
            sizes = sorted({size(MEMORY, one) for one in value.split(",")})
        else:
            others.append(word)
    for name, found in ((GPUS, counts), (MEMORY, sizes)):
        if not 1 <= len(found) <= MOST:
            raise UserError(f"--search: {name} names {len(found)} values: give 1 to {MOST}")
    return counts, sizes, others


def _counts(text: str) -> Iterator[int]:
    for part in text.split(","):
        found = re.fullmatch(r"([1-9]\d{0,4})(?:\.\.([1-9]\d{0,4}))?", part.strip())
        if found is None:
            raise UserError(f"--search: {GPUS}={text} is no number of cards: use for example gpus=1..8 or gpus=1,2,4")
        yield from range(int(found[1]), int(found[2] or found[1]) + 1)


def _asked(asked: Asked, count: int, memory: float) -> Asked:
    return Asked(count, asked.gpu, f"{memory:g}GiB", asked.host_memory)


def _cost(short: str) -> int:
    return ORDER.index(short) if short in ORDER else len(ORDER)
