"""The kinds of charts. Colours are numbers of a palette that the page has for light and for dark."""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from zerofit.report.pages.files import Column
from zerofit.report.pages.parts import Chart, Key, Table
from zerofit.report.pages.units import number

COLOURS = 7
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
MARKS = ("circle", "square", "diamond", "triangle-up", "cross", "x", "star")
PATTERNS = ("", "/", ".", "x", "-", "\\", "+")
POINTS = 2000
"""Of a curve, at most: more are not seen."""
ROWS = 40
"""Of a chart's table, at most."""

Values = Sequence[float | None]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Series:
    """One curve; what is not finite is a gap."""

    name: str
    x: Floats
    y: Floats
    style: Literal["line", "faint", "marked"] = "line"
    colour: int | None = None
    """Null: the next one."""


def thin(x: Floats, y: Floats, most: int = POINTS) -> tuple[Floats, Floats]:
    """Lowest and highest point of each of most / 2 stretches, in their order: no peak is lost."""
    if len(x) <= most:
        return x, y
    ends = np.linspace(0, len(x), most // 2 + 1).astype(np.int64)
    low, high = np.where(np.isfinite(y), y, np.inf), np.where(np.isfinite(y), y, -np.inf)
    kept = {
        int(start + place)
        for start, end in pairwise(ends)
        for place in (low[start:end].argmin(), high[start:end].argmax())
    }
    order = np.array(sorted(kept))
    return x[order], y[order]


def lines(
    name: str,
    title: str,
    unit: str,
    series: Sequence[Series],
    *,
    x_title: str = "optimizer step",
    digits: int = 4,
    log: bool = False,
    zero: bool = False,
    note: str = "",
    wide: bool = False,
    epochs: Column | None = None,
) -> Chart:
    """Curves over x. `faint` ones lie behind the one that follows and share its colour and its legend entry."""
    data: list[dict[str, Any]] = []
    keys: list[Key] = []
    colour = 0
    pending: list[int] = []
    said = "%{y:.3~g}" if log else f"%{{y:,.{digits}~r}}"
    for one in series:
        own = colour if one.colour is None else one.colour
        x, y = thin(one.x, one.y)
        dash = "solid" if one.style == "faint" else DASHES[own % len(DASHES)]
        few = one.style == "marked" or len(x) <= 30
        trace: dict[str, Any] = {
            "type": "scatter",
            "mode": "lines+markers" if few and one.style != "faint" else "lines",
            "name": plain(one.name),
            "x": [int(value) for value in x],
            "y": [rounded(value) for value in y.tolist()],
            "line": {"width": 1 if one.style == "faint" else 2, "dash": dash},
            "marker": {"symbol": MARKS[own % len(MARKS)], "size": 6},
            "opacity": 0.35 if one.style == "faint" else 1,
            "hovertemplate": said + (" at %{x:,d}" if one.style == "marked" else ""),
            "meta": {"colour": own},
        }
        if one.style == "faint":
            trace["hoverinfo"], trace["hovertemplate"] = "skip", None
        data.append(trace)
        pending.append(len(data) - 1)
        if one.style != "faint":
            keys.append(Key(one.name, own, "line", dash, tuple(pending)))
            pending, colour = [], max(colour, own) + 1
    layout: dict[str, Any] = {
        "xaxis": {
            "title": {"text": x_title},
            "hoverformat": ",d",
            "tickformat": ",~r",
            "showspikes": True,
            "unifiedhovertitle": {"text": f"{x_title} %{{x:,d}}"},
        },
        "yaxis": {"type": "log" if log else "linear", "rangemode": "tozero" if zero else "normal"},
        "hovermode": "x unified",
        "hoverdistance": -1,  # the nearest step, however far it is
    }
    if log:
        layout["yaxis"].update(_ticks(series))
    shown = [one for one in series if one.style != "faint"]
    return Chart(
        name=name,
        title=title,
        unit=unit,
        summary=f"{title}{f' in {unit}' if unit else ''} over {x_title}: " + "; ".join(_course(one) for one in shown),
        data=data,
        layout=layout,
        table=_curve_table(shown, title, x_title, unit, epochs),
        keys=keys if len(keys) > 1 else (),
        note=note,
        wide=wide,
    )


def bars(
    name: str,
    title: str,
    unit: str,
    labels: Sequence[str],
    parts: Sequence[tuple[str, Values]],
    *,
    stacked: bool = False,
    decimals: int = 2,
    note: str = "",
    limit: tuple[str, float] | None = None,
    marks: Sequence[tuple[str, Values]] = (),
    wide: bool = False,
    head: str = "",
    say: Callable[[float | None], str] = number,
    colours: Sequence[int] = tuple(range(COLOURS)),
    totals: Values | None = None,
) -> Chart:
    """Horizontal bars, a row a label, the first on top.

    `limit` is a line across, `marks` are points on the rows, `totals` are written after them; `colours` are of parts
    and then of marks.
    """
    rows = [plain(label) for label in labels]
    data: list[dict[str, Any]] = []
    keys: list[Key] = []
    for colour, (part, values) in zip(colours, parts, strict=False):
        pattern = PATTERNS[colour % len(PATTERNS)]
        data.append(
            {
                "type": "bar",
                "orientation": "h",
                "name": plain(part),
                "y": rows,
                "x": [rounded(value) for value in values],
                "hovertemplate": f"%{{x:,.{decimals}f}} {plain(unit)}",
                "marker": {"pattern": {"shape": pattern}},
                "meta": {"colour": colour},
            }
        )
        keys.append(Key(part, colour, "area", pattern, (len(data) - 1,)))
    for colour, (mark, values) in zip(colours[len(parts) :], marks, strict=False):
        data.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": plain(mark),
                "y": rows,
                "x": [rounded(value) for value in values],
                "hovertemplate": f"%{{x:,.{decimals}f}} {plain(unit)}",
                "marker": {"symbol": "diamond", "size": 11},
                "meta": {"colour": colour},
            }
        )
        keys.append(Key(mark, colour, "mark", "diamond", (len(data) - 1,)))
    if totals is not None:
        ends = [
            max((value for value in (total, *(v[i] for _, v in marks)) if value), default=None)
            for i, total in enumerate(totals)
        ]
        data.append(
            {
                "type": "scatter",
                "mode": "text",
                "y": rows,
                "x": [rounded(end) for end in ends],
                "text": [f"  {say(total)}" for total in totals],
                "textposition": "middle right",
                "hoverinfo": "skip",
                "cliponaxis": False,
                "meta": {"colour": 6},
            }
        )
    layout: dict[str, Any] = {
        "barmode": "stack" if stacked else "group",
        "yaxis": {"autorange": "reversed", "type": "category", "labels": True},
        "xaxis": {"title": {"text": plain(unit)}, "rangemode": "tozero", "tickformat": ",~r"},
        "hovermode": "y unified",
    }
    if limit is not None:
        layout["limit"] = {"text": plain(limit[0]), "at": limit[1]}
    every = [*parts, *marks]
    table = Table(
        title,
        (head or "", *(f"{part}, {unit}" for part, _ in every)),
        [(label, *(say(values[i]) for _, values in every)) for i, label in enumerate(labels)],
    )
    return Chart(
        name=name,
        title=title,
        unit="",
        summary=f"{title} in {unit}, for {len(labels)} rows; the table has the figures.",
        data=data,
        layout=layout,
        table=table,
        keys=keys if len(keys) > 1 else (),
        note=note,
        height=(110 if not limit else 126) + (30 if stacked or len(every) == 1 else 18 * len(every) + 8) * len(labels),
        wide=wide,
    )


def plain(text: str) -> str:
    """Text as Plotly shows it: it takes some HTML, which a name must not have."""
    return html.escape(text, quote=False)


def rounded(value: float | None) -> float | None:
    """Six significant digits: what is drawn has fewer."""
    if value is None or not math.isfinite(value):
        return None
    return value if isinstance(value, int) else float(f"{value:.6g}")


def evenly(count: int, most: int) -> list[int]:
    """At most so many of `count` positions, first and last among them."""
    if count <= most:
        return list(range(count))
    return sorted({round(i * (count - 1) / (most - 1)) for i in range(most)})


def _ticks(series: Sequence[Series]) -> dict[str, Any]:
    """Of a logarithmic axis: powers of ten alone over more than two of them; 1, 2 and 5 over more than one."""
    values = np.concatenate([one.y[np.isfinite(one.y) & (one.y > 0)] for one in series])
    decades = float(np.log10(values.max() / values.min())) if len(values) else 0.0
    if decades > 2:
        return {"tickformat": "~e", "dtick": 1}
    if decades > 1:
        return {"dtick": "D2"}
    return {"tickformat": ".1~e"} if len(values) and values.max() < 1e-3 else {}


def _course(series: Series) -> str:
    values = series.y[np.isfinite(series.y)].tolist()
    if not values:
        return f"{series.name} has no values"
    ends = f"{series.name} from {number(values[0])} to {number(values[-1])}"
    return f"{ends}, lowest {number(min(values))}, highest {number(max(values))}"


def _curve_table(series: Sequence[Series], title: str, x_title: str, unit: str, epochs: Column | None) -> Table:
    places = np.unique(np.concatenate([one.x for one in series]))
    shown = places[evenly(len(places), ROWS)]
    if len(places) > ROWS:  # rare ones, of validations, are all there as far as they are few
        shown = np.unique(np.concatenate([shown, *(one.x for one in series if len(one.x) <= ROWS)]))
    every = [_at(one.x, one.y, shown) for one in series]
    epoch = {} if epochs is None else _at(epochs.steps, epochs.values, shown)
    rows = [
        (
            number(x, 7),
            *(() if epochs is None else (number(epoch[x]) if x in epoch else "",)),
            *(number(one[x], 4) if x in one else "" for one in every),
        )
        for x in shown.tolist()
    ]
    few = f"{len(shown):,} of {len(places):,} points" if len(shown) < len(places) else ""
    extra = () if epochs is None else ("epoch",)
    units = [f"{one.name}, {unit}" if unit else one.name for one in series]
    return Table(title, (x_title, *extra, *units), rows, words=(), note=few)


def _at(x: Floats, y: Floats, places: Floats) -> dict[float, float]:
    chosen = np.isin(x, places)
    return dict(zip(x[chosen].tolist(), y[chosen].tolist(), strict=True))
