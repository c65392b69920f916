"""The page of an evaluation on CAD models: how well parts are made of what is told of them, and what they look like."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from zerofit.report.pages import sheet
from zerofit.report.pages.charts import bars
from zerofit.report.pages.estimates import Estimate, interval, of_run, sampled, whiskers
from zerofit.report.pages.files import PAGE, Read, finite, parsed
from zerofit.report.pages.parts import Chart, Figure, Notes, Page, Part, Section, Sheet, Table
from zerofit.report.pages.units import NONE, count, duration, fixed, number, percent
from zerofit.report.pages.writing import rows

ROWS = "shapes.parquet"
UNTOLD = "none"
"""The mix that tells nothing: an empty caption, no points, no image."""
SHARES = {
    "parsed": "parsed",
    "valid": "valid",
    "command_accuracy": "command accuracy",
    "parameter_accuracy": "parameter accuracy",
    "iou": "IoU",
}
"""Figures that are fractions, and their names."""
REASONS = 12
"""Why parts are not valid: so many kinds, at most."""
ON_RUN = 6
"""Models of the newest evaluation that a run's page shows."""
WHAT = (
    "parsed: the text is a command sequence; valid: OpenCASCADE makes a solid of it.",
    "Command accuracy: the share of the truth's commands whose kind is right at its place; parameter accuracy: of the "
    "values of these, the share less than 3 of 256 levels off (DeepCAD). A text that does not parse counts as 0.",
    "Chamfer distance: between clouds of points on the two surfaces, mean squared distances both ways added up, of "
    "parts scaled into a cube of side 1.5; over valid parts alone. IoU: the volume that both fill, of that which any "
    "of the two fills, over valid parts alone.",
    "none: the same model is told nothing. What it makes then shows how far a figure can be reached by habit.",
)


class Figures(Read):
    """Of a mix. What there is no valid part for is null."""

    shapes: int
    truncated: float
    tokens: dict[str, float]
    parsed: Estimate
    valid: Estimate
    command_accuracy: Estimate
    parameter_accuracy: Estimate
    iou: Estimate | None = None
    chamfer: Estimate | None = None
    """The median."""
    chamfer_mean: Estimate | None = None

    @property
    def shares(self) -> list[Estimate | None]:
        """Those of SHARES."""
        return [self.parsed, self.valid, self.command_accuracy, self.parameter_accuracy, self.iou]


class Evaluation(Read):
    """evaluation.json."""

    model: str
    data: str
    sampling: dict[str, Any]
    seed: int
    constrained: bool = False
    """Whether nothing could be written that is no command text."""
    figures: dict[str, Figures]
    """By what is told of a model."""
    wall_s: float | None = None
    tokens_s: float | None = None

    @property
    def mixes(self) -> list[str]:
        """What tells least first; nothing last."""
        return sorted(self.figures, key=lambda name: (name == UNTOLD, name.count("+")))


def page(file: Path) -> Page:
    """The page of the evaluation.json at `file`, and of the shapes.parquet beside. Raises UserError: damaged."""
    made = parsed(file, Evaluation)
    every = rows(file.with_name(ROWS), sheet.COLUMNS)
    sections = [Section("results", "Results", _results(made, every))]
    shown = sheet.sheet(every, made.mixes)
    if shown is not None:
        sections.append(Section("shapes", "Shapes", [shown], "The true part, and what was made of what was told."))
    how = sampled(made.sampling, made.seed) + (", held to the grammar" if made.constrained else "")
    return Page("evaluation", Path(made.model).name or made.model, (made.data, how), _headline(made), sections)


def of_a_run(directory: Path) -> list[Table | Sheet]:
    """Evaluations of a run on CAD models, and shapes of the newest, for its page."""
    files = of_run(directory, ROWS)
    if not files:
        return []
    cells, links = list[tuple[str, ...]](), dict[int, str]()
    for file in files:
        made = parsed(file, Evaluation)
        for mix in made.mixes:
            if (file.parent / PAGE).is_file():
                links[len(cells)] = f"evaluations/{file.parent.name}/{PAGE}"
            one = made.figures[mix]
            shares = [NONE if share is None else percent(share.value) for share in one.shares]
            cells.append((file.parent.name, Path(made.model).name, made.data, mix, *shares, _distance(one.chamfer)))
    head = ("evaluation", "model", "data", "told", *SHARES.values(), "chamfer × 1,000, median")
    table = Table("Evaluations of CAD models", head, cells, words=(0, 1, 2, 3), links=links)
    shown = sheet.sheet(rows(files[-1].with_name(ROWS), sheet.COLUMNS), made.mixes, ON_RUN)
    return [table] if shown is None else [table, shown]


def _headline(made: Evaluation) -> list[Figure]:
    """Of the mix that tells most, with what comes of nothing beside."""
    told = [mix for mix in made.mixes if mix != UNTOLD]
    if not told:
        return []
    best, untold = made.figures[told[-1]], made.figures.get(UNTOLD)
    nothing = [None] * len(SHARES) if untold is None else untold.shares
    figures = [Figure("Told", told[-1], "", "the figures beside are of it")]
    for name, one, other in zip(SHARES.values(), best.shares, nothing, strict=True):
        note = "" if other is None else f"{percent(other.value)} told nothing"
        value = NONE if one is None else fixed(100 * one.value, 1)
        figures.append(Figure(name[0].upper() + name[1:], value, "" if one is None else "%", note))
    note = "" if untold is None or untold.chamfer is None else f"{_distance(untold.chamfer)} told nothing"
    figures.append(Figure("Chamfer × 1,000", _distance(best.chamfer), "", f"median; {note}" if note else "median"))
    if made.wall_s is not None:
        speed = "" if made.tokens_s is None else f"{made.tokens_s:,.0f} tokens/s"
        figures.append(Figure("Time", duration(made.wall_s), "", speed))
    return figures


def _results(made: Evaluation, every: Sequence[Mapping[str, Any]]) -> list[Part]:
    reasons = _reasons(made, every)
    why = [] if reasons is None else [reasons]
    return [_table(made), _chart(made), *why, Notes("What the figures are", WHAT)]


def _table(made: Evaluation) -> Table:
    """A row a figure, a column a mix: what is told of nothing stands beside."""
    mixes = [made.figures[mix] for mix in made.mixes]
    shares = zip(SHARES.values(), zip(*(one.shares for one in mixes), strict=True), strict=True)
    cells = [
        ("models", *(count(one.shapes) for one in mixes)),
        *((name, *(NONE if one is None else interval(one) for one in those)) for name, those in shares),
        ("chamfer × 1,000, median", *(_spread(one.chamfer) for one in mixes)),
        ("chamfer × 1,000, mean", *(_spread(one.chamfer_mean) for one in mixes)),
        ("tokens, mean", *(count(finite(one.tokens.get("mean"))) for one in mixes)),
        ("cut off", *(percent(one.truncated) for one in mixes)),
    ]
    return Table("Figures by what is told", ("", *made.mixes), cells, note="With 95 % intervals over models.")


def _chart(made: Evaluation) -> Chart:
    """Bars with whiskers: a group a mix, a bar a figure."""
    columns = list(zip(*(made.figures[mix].shares for mix in made.mixes), strict=True))
    values = [[None if one is None else 100 * one.value for one in column] for column in columns]
    chart = bars(
        "figures",
        "Figures by what is told",
        "%",
        made.mixes,
        list(zip(SHARES.values(), values, strict=True)),
        note="With 95 % intervals over models.",
        decimals=1,
        wide=True,
        head="told",
    )
    data = [{**trace, "error_x": whiskers(column)} for trace, column in zip(chart.data, columns, strict=True)]
    layout = {**chart.layout, "xaxis": {**chart.layout["xaxis"], "range": [0, 100]}}
    said = "; ".join(f"{mix}: valid {interval(made.figures[mix].valid)}" for mix in made.mixes)
    return replace(chart, data=data, layout=layout, summary=f"{chart.summary} {said}")


def _reasons(made: Evaluation, every: Sequence[Mapping[str, Any]]) -> Table | None:
    """Why parts are not valid, most frequent first; null where all are."""
    found = Counter((sheet.why(row), row["mix"]) for row in every if not row["valid"])
    totals: Counter[str] = Counter()
    for (why, _), times in found.items():
        totals[why] += times
    if not totals:
        return None
    frequent = [why for why, _ in sorted(totals.items(), key=lambda one: (-one[1], one[0]))]
    cells = [(why, *(count(found[why, mix]) for mix in made.mixes)) for why in frequent[:REASONS]]
    note = f"The {REASONS} most frequent of {len(frequent):,}." if len(frequent) > REASONS else ""
    return Table("Why parts are not valid", ("reason", *made.mixes), cells, note=note)


def _distance(one: Estimate | None) -> str:
    return NONE if one is None else number(1000 * one.value)


def _spread(one: Estimate | None) -> str:
    if one is None:
        return NONE
    return f"{_distance(one)} ({number(1000 * one.low)} to {number(1000 * one.high)})"
