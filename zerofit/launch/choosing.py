"""`strategy: auto`, and a micro-batch or activation checkpointing that is: the fastest predicted plan that fits.

Formulas weigh all plans in a second. Then the step of the best one is played through, and what that says corrects the
others, until the best one is one whose step was played, and so was one of each sort that comes near. The order of plans
is predict/choose.py's.
"""

from __future__ import annotations

from collections.abc import Callable

from zerofit.config.errors import UserError
from zerofit.config.strategy import AUTO
from zerofit.launch.alternatives import row_of
from zerofit.launch.contenders import with_strategy
from zerofit.launch.predicting import Timed, with_levers
from zerofit.launch.weighing import Scales, Weighed
from zerofit.plan.auto import is_open, micro_by_rule
from zerofit.plan.calibration import Calibration
from zerofit.plan.choice import Choice, Row
from zerofit.plan.prediction import Unpredicted
from zerofit.plan.spec import Hardware, RunSpec, named
from zerofit.plan.strategy import Chosen
from zerofit.predict.choose import best, needs_least, next_best

PLAYS = 4
"""Steps that are played through, at most: seconds each."""
SEARCH = "zerofit plan RECIPE --search"
Tell = Callable[[str], None]


def silent(text: str) -> None:
    """Tells nobody."""


def choose(
    spec: RunSpec,
    host_gib: float | None,
    timing: Timed | None,
    *,
    here: bool = True,
    tell: Tell = silent,
    calibration: Calibration | None = None,
) -> RunSpec:
    """`spec`, planned by a rule, with what its recipe leaves open chosen, and with what is predicted of it.

    On the same number of ranks; as it is where nothing is open. Without `timing` by formulas alone. Where nothing fits,
    what needs least: its choice has no row that is `chosen`. Where nothing is predicted a rule's plan, which says why.
    `calibration` is what was measured of such cards, and `timing` made with. Raises UserError for a card that no
    strategy fits.
    """
    if not is_open(spec.recipe):
        return spec
    if spec.hardware.device != "cuda":
        return by_rule(spec, "nothing is predicted on a CPU")
    try:
        scales = Scales.of(spec, host_gib, here, calibration)
    except Unpredicted as why:
        return by_rule(_careful(spec, here), f"nothing is predicted: {why}")
    if not scales.weighed:
        return by_rule(spec, "none of the others is possible")
    taken = _taken(scales, timing, tell)
    rows = scales.rows()
    if taken is None:
        least = needs_least(rows)
        assert least is not None, "there are plans"
        one = scales.weighed[rows.index(least)]
        choice = Choice(why=_nothing(least, spec.hardware, host_gib), table=(*rows, *scales.refused))
    else:
        one, row = taken, rows[scales.weighed.index(taken)]
        second = next_best(rows, row)
        choice = Choice(why=_why(row, second, spec), chosen=row, runner_up=second, table=(*rows, *scales.refused))
    made = with_levers(scales.prediction(one), one.spec)
    return one.spec.model_copy(update={"prediction": made, "choice": choice})


def check(spec: RunSpec) -> None:
    """Raise UserError where nothing was found to fit."""
    if spec.choice is not None and spec.choice.chosen is None and spec.choice.table:
        raise UserError(f"auto: {spec.choice.why}")


def by_rule(spec: RunSpec, why: str) -> RunSpec:
    """`spec` as it is, with what is said of it."""
    return spec.model_copy(update={"choice": Choice(why=f"{row_of(spec).words}: by rule, for {why}")})


def _careful(spec: RunSpec, here: bool) -> RunSpec:
    """The plan for a GPU of a model whose size nobody knows: what needs little, and is not slow."""
    recipe, ranks = spec.recipe, spec.batches.ranks
    fields = {}
    if recipe.strategy.name == AUTO:
        fields["name"] = "single" if ranks == 1 else "zero2"
    if recipe.strategy.activation_checkpointing == AUTO and recipe.strategy.name is not None:
        fields["activation_checkpointing"] = "full"
    most = 32 if recipe.task in ("classify", "probe") else 1
    strategy = named(spec.strategy, **fields)
    try:
        return with_strategy(spec, Chosen(strategy), micro_by_rule(recipe, spec.data, ranks, most), here)
    except UserError:  # DeepSpeed is not installed, say
        return spec


def _taken(scales: Scales, timing: Timed | None, tell: Tell) -> Weighed | None:
    """The best; with `timing` one whose step was played through, as far as PLAYS go. Null: none fits."""
    if timing is None:
        return _of(scales, best(scales.rows()), hopeful=False)
    tell(f"auto: {len(scales.weighed)} plans by formulas; a step of the best is played through, which takes seconds")
    for _ in range(PLAYS):
        top = _of(scales, best(scales.rows(hopeful=True)), hopeful=True)
        if top is None:  # formulas may be wrong: the one that needs least is asked itself
            top = _of(scales, needs_least(scales.rows()), hopeful=False)
        assert top is not None, "there are plans"
        doubt = scales.rival(top) if top.played else top
        if doubt is None:
            return top
        scales.play(doubt, timing)
    return _of(scales, best(scales.rows()), hopeful=False)


def _of(scales: Scales, row: Row | None, *, hopeful: bool) -> Weighed | None:
    return None if row is None else scales.weighed[scales.rows(hopeful=hopeful).index(row)]


def _why(row: Row, second: Row | None, spec: RunSpec) -> str:
    about = "" if row.exact else "about "
    card = f"{about}{row.needed_gib:.1f} of {spec.hardware.memory_gib:g} GiB"
    said = f"{row.words}: {_speed(row)}{card}"
    if row.verdict == "tight":
        said += ", tight: nothing fits with the allocator's slack"
    if second is None:
        return f"{said}; nothing else fits"
    other = second.strategy if second.strategy != row.strategy else second.words
    speed = _speed(second).removesuffix(" predicted, ")
    return f"{said}; next: {other}" + (f", {speed}" if speed else "")


def _speed(row: Row) -> str:
    if row.samples_s is None:
        return ""
    digits = 1 if row.samples_s >= 10 else 2
    return f"{'' if row.exact else 'about '}{row.samples_s:,.{digits}f} samples/s predicted, "


def _nothing(least: Row, hardware: Hardware, host_gib: float | None) -> str:
    about = "" if least.exact else "about "
    host = "" if host_gib is None else f", and {least.host_gib:.0f} of the host's {host_gib:.0f}"
    cards = f"{hardware.count} x {hardware.name}" if hardware.count > 1 else hardware.name
    return (
        f"nothing fits {cards}: {least.words}, needs least, {about}{least.needed_gib:.1f} GiB of "
        f"{hardware.memory_gib:g} a GPU{host}; what would do: {SEARCH}"
    )
