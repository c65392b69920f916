"""The page of a plan: what each strategy would need of a card, as bars against what the card has."""

from __future__ import annotations

from collections.abc import Sequence

from zerofit.plan.answer import Plan, StagePlan
from zerofit.plan.prediction import Prediction
from zerofit.report.measured import HEADS, conclusions, row
from zerofit.report.outlook import KINDS, SHOWN, verdict
from zerofit.report.pages.charts import bars
from zerofit.report.pages.parts import Figure, Notes, Page, Part, Section, Table
from zerofit.report.pages.units import fixed, number

PARTS = 6
"""Of a bar, at most, less one for what is added up."""


def page(plan: Plan) -> Page:
    """Of all its stages, a tab each."""
    first = plan.stages[0]
    return Page(
        what="plan",
        title=plan.recipe,
        subtitle=(f"{first.hardware.count} x {first.hardware.name} · {first.hardware.memory_gib:g} GiB each",),
        figures=_figures(first) if len(plan.stages) == 1 else (),
        sections=[_section(stage, number) for number, stage in enumerate(plan.stages)],
    )


def _figures(plan: StagePlan) -> list[Figure]:
    own = next((one for one in plan.strategies if one.own), None)
    if own is None or own.prediction is None:
        return []
    found = own.prediction
    band = "" if found.memory.exact else "by formulas"
    return [
        Figure("Peak of a GPU", fixed(found.peak_gib), "GiB", band),
        Figure("Needed", fixed(found.fit.needed_gib), "GiB", f"of {found.fit.card_gib:g}: {found.fit.verdict}"),
        Figure("Host memory", fixed(found.fit.host_needed_gib, 0), "GiB", "all ranks"),
    ]


def _section(plan: StagePlan, place: int) -> Section:
    parts: list[Part] = []
    made = [one for one in plan.strategies if one.prediction is not None]
    if made:
        parts += [memory(plan, f"memory-{place}"), _table(plan)]
    if plan.measured is not None:
        title = f"Measured: {plan.measured.strategy}, {plan.measured.steps} steps a line"
        parts.append(Table(title, HEADS, [row(one) for one in plan.measured.trials]))
        parts.append(Notes("What that comes to", conclusions(plan.measured)))
    own = next((one for one in made if one.own), None)
    notes = [] if plan.choice is None else [f"Chosen: {plan.choice.why}"]
    notes += [] if plan.assumed is None else [plan.assumed]
    if own is not None and own.prediction is not None:
        notes += [f"Lowers the peak of {own.strategy}: {lever}" for lever in own.prediction.levers]
        notes += [f"Not modelled: {what}" for what in own.prediction.memory.not_modelled]
    if notes:
        parts.append(Notes("Notes", notes))
    return Section(f"plan-{place}", plan.name, parts)


def memory(plan: StagePlan, name: str) -> Part:
    """Stacked bars of what the peak of each strategy is for, against the card's memory."""
    made = [(one, one.prediction) for one in plan.strategies if one.prediction is not None]
    card = plan.hardware.memory_gib
    whose = " (the recipe’s)" if plan.choice is None else " (chosen)"
    return bars(
        name,
        "Memory of a GPU at its fullest moment",
        "GiB",
        [f"{one.strategy}{whose if one.own else ''}" for one, _ in made],
        _kinds([found for _, found in made]),
        stacked=True,
        limit=(f"{card:g} GiB of the card", card),
        totals=[found.peak_gib for _, found in made],
        head="strategy",
        wide=True,
        note="Beside the peak a card holds CUDA’s context, NCCL’s buffers and the allocator’s slack: see needed.",
    )


def _kinds(made: Sequence[Prediction]) -> list[tuple[str, list[float]]]:
    """What peaks are for, in the order of KINDS: as many kinds as there are colours, the smallest added up."""
    values = {kind: [found.memory.split.get(kind, 0.0) for found in made] for kind in KINDS}
    least = SHOWN * max(found.peak_gib for found in made)
    large = sorted((kind for kind in values if max(values[kind]) > least), key=lambda kind: -max(values[kind]))
    shown = [kind for kind in KINDS if kind in large[: PARTS - 1] and kind != "other"]
    rest = [sum(values[kind][place] for kind in values if kind not in shown) for place in range(len(made))]
    found = [(KINDS[kind], values[kind]) for kind in shown]
    return [*found, ("other", rest)] if max(rest) > least else found


def _table(plan: StagePlan) -> Table:
    rows = []
    for one in plan.strategies:
        found = one.prediction
        if found is None:
            rows.append((one.strategy, "", "", "", "", "", one.reason or ""))
            continue
        cells = (fixed(found.peak_gib), fixed(found.fit.least_gib), fixed(found.fit.needed_gib))
        host = number(found.fit.host_needed_gib)
        rows.append((one.strategy, str(one.ranks), *cells, host, verdict(found.fit)))
    head = ("strategy", "ranks", "peak, GiB", "without slack", "needed", "host, GiB", "verdict")
    strong = [place for place, one in enumerate(plan.strategies) if one.own]
    return Table("Whether it fits", head, rows, words=(0, 6), strong=strong)
