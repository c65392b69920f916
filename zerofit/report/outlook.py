"""What strategies would need of a card, as a table in the terminal; and a grid of machines."""

from __future__ import annotations

from collections.abc import Sequence

from zerofit.plan.answer import Cell, Outlook, Search, StagePlan
from zerofit.plan.closed_form import ERROR
from zerofit.plan.fitting import EXACT_ERROR, outside
from zerofit.plan.prediction import Fit, Prediction
from zerofit.plan.spec import RunSpec

KINDS = {
    "weights": "weights",
    "gradients": "gradients",
    "optimizer": "optimizer",
    "buckets": "buckets",
    "gathered": "gathered",
    "activations": "activations",
    "logits": "logits",
    "kv_cache": "KV cache",
    "other": "other",
}
"""Kinds of a prediction's split, in the order of columns, and what these are called."""
SHOWN = 0.01
"""Share of the highest peak from which on a kind has a column."""


def table(plan: StagePlan) -> str:
    """The strategies of a stage, a line each; levers and what is not modelled below."""
    made = [one.prediction for one in plan.strategies if one.prediction is not None]
    least = SHOWN * max((one.peak_gib for one in made), default=0.0)
    kinds = [kind for kind in KINDS if any(one.memory.split.get(kind, 0.0) > least for one in made)]
    timed = any(one.speed is not None for one in made)
    host = any(one.fit.host_needed_gib for one in made)
    heads = ["GiB a GPU", "peak", *(KINDS[kind] for kind in kinds), "at", "needed", *["host"] * host]
    heads += [*["samples/s"] * timed, ""]
    rows = [_row(one, kinds, host=host, timed=timed) for one in plan.strategies]
    widths = [max(len(row[column]) for row in (heads, *rows)) for column in range(len(heads) - 1)]
    left = (0, 2 + len(kinds))
    lines = []
    for row in (heads, *rows):
        cells = [f"{cell:{width}}" if i in left else f"{cell:>{width}}" for i, (cell, width) in _numbered(row, widths)]
        lines.append("  ".join([*cells, row[-1]]).rstrip())
    return "\n".join([_title(plan, made), *lines, *_below(plan)])


def grid(search: Search) -> str:
    """Cards down, memory across: in each cell the first strategy that fits."""
    sizes = sorted({cell.memory_gib for cell in search.cells})
    counts = sorted({cell.gpus for cell in search.cells})
    at = {(cell.gpus, cell.memory_gib): cell for cell in search.cells}
    heads = ["GPUs", *(f"{size:g} GiB" for size in sizes)]
    rows = [[str(count), *(_cell(at[count, size]) for size in sizes)] for count in counts]
    widths = [max(len(row[column]) for row in (heads, *rows)) for column in range(len(heads))]
    lines = [
        "  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in (heads, *rows)
    ]
    cells = [cell.prediction.memory.exact for cell in search.cells if cell.prediction is not None]
    how = (
        "played through where it was close, else by formulas"
        if any(cells)
        else f"by formulas, within {_percent(ERROR)}"
    )
    reasons = list(dict.fromkeys(cell.reason for cell in search.cells if cell.reason is not None))
    return "\n".join([f"the first strategy that fits, in the order of their cost; {how}", *lines, *reasons])


def _title(plan: StagePlan, made: Sequence[Prediction]) -> str:
    card = f"{plan.hardware.name}, {plan.hardware.memory_gib:g} GiB"
    exact = [one.memory.exact for one in made]
    if exact and all(exact):
        how = f"a step played through, within {_percent(EXACT_ERROR)}"
    elif any(exact):
        how = f"a step played through, within {_percent(EXACT_ERROR)}; with ~ by formulas, within {_percent(ERROR)}"
    else:
        how = f"by formulas, within {_percent(ERROR)}"
    return f"memory of {card}; {how}"


def _row(one: Outlook, kinds: Sequence[str], *, host: bool, timed: bool) -> list[str]:
    name = f"{'*' if one.own else ' '} {one.strategy}"
    empty = 4 + len(kinds) + host + timed - 1
    found = one.prediction
    if found is None:
        return [name, *[""] * empty, one.reason or ""]
    split = [found.memory.split.get(kind, 0.0) for kind in kinds]
    about = "" if found.memory.exact else "~"
    cells = [f"{about}{gib(found.peak_gib)}", *(gib(size) if size >= 0.005 else "" for size in split)]
    cells += [found.memory.phase, gib(found.fit.needed_gib), *[f"{found.fit.host_needed_gib:.0f}"] * host]
    if timed:
        cells.append("" if found.speed is None else f"{found.speed.samples_s:,.1f}")
    return [name, *cells, verdict(found.fit)]


def choice(spec: RunSpec) -> list[str]:
    """What is said of a choice; nothing where nothing was chosen."""
    return [] if spec.choice is None else [f"auto: {spec.choice.why}"]


def line(spec: RunSpec) -> list[str]:
    """What is said of a run's memory before it starts; nothing where nothing was predicted."""
    if spec.prediction is None:
        return []
    found = spec.prediction
    about = "" if found.memory.exact else "about "
    card = f"of {found.fit.card_gib:g} a GPU, at its fullest in {found.memory.phase}"
    said = f"memory: {about}{gib(found.peak_gib)} GiB {card}: {verdict(found.fit)}"
    if found.fit.verdict != "fits" and found.levers:
        said += f" ({gib(found.fit.needed_gib)} GiB with what comes on top); lower it by {', '.join(found.levers)}"
    return [said]


def gib(size: float) -> str:
    """`38.7`, `0.05`."""
    return f"{size:.2f}" if size < 1 else f"{size:.1f}"


def verdict(found: Fit) -> str:
    """`fits`, `tight`, `does not fit`; the host's beside where that is worse than `fits`."""
    if found.host_verdict == "fits" or found.host_gib is None:
        return found.verdict
    return f"{found.verdict}; the host, {found.host_gib:g} GiB: {found.host_verdict}"


def _below(plan: StagePlan) -> list[str]:
    several = any(one.ranks is not None and one.ranks > 1 for one in plan.strategies)
    fits = [one.prediction.fit for one in plan.strategies if one.prediction is not None]
    beside = max((one.outside_gib for one in fits if one.outside_gib is not None), default=outside(2 if several else 1))
    own = next((one for one in plan.strategies if one.own), None)
    whose = "the recipe's" if plan.choice is None else "what auto chose, with its micro-batch and checkpointing"
    lines = [
        f"* {whose}; needed: the peak with its error, {beside:.2g} GiB of CUDA"
        f"{' and NCCL' if several else ''}, and the allocator's slack; tight: without the slack alone"
    ]
    measured = _calibrated(plan)
    if measured is not None:
        lines.append(measured)
    if plan.assumed is not None:
        lines.append(plan.assumed)
    if own is not None and own.prediction is not None:
        found = own.prediction
        if found.levers:
            lines.append(f"{own.strategy} is lowered most by " + ", ".join(found.levers))
        if found.memory.not_modelled:
            lines.append(f"not modelled: {'; '.join(found.memory.not_modelled)}")
    return lines


def _calibrated(plan: StagePlan) -> str | None:
    """What was measured of such cards and not shipped, with its day; null: nothing."""
    made = [one.prediction for one in plan.strategies if one.prediction is not None]
    sources = {
        "rates": {one.speed.rates for one in made if one.speed is not None},
        "what CUDA and NCCL take": {one.fit.outside_from for one in made},
    }
    named = [(what, max(found - {"shipped"})) for what, found in sources.items() if found - {"shipped"}]
    if not named:
        return None
    return f"{named[0][1]} (zerofit doctor): {' and '.join(what for what, _ in named)}"


def _cell(cell: Cell) -> str:
    if cell.strategy is None:
        return "-"
    few = "" if cell.ranks in (None, cell.gpus) else f" on {cell.ranks}"
    return cell.strategy + few + ("" if cell.verdict == "fits" else f", {cell.verdict}")


def _numbered(row: Sequence[str], widths: Sequence[int]) -> list[tuple[int, tuple[str, int]]]:
    return list(enumerate(zip(row, widths, strict=False)))


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"
