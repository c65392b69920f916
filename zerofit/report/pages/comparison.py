"""The page of a comparison: the same work under several strategies; what each holds, how fast it is, which to take."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from zerofit.report.pages.charts import MARKS, Floats, Series, bars, lines, plain, rounded
from zerofit.report.pages.configuration import here
from zerofit.report.pages.files import PAGE, Read, parsed
from zerofit.report.pages.parts import Chart, Code, Facts, Figure, Key, Notes, Page, Part, Section, Table, Tone
from zerofit.report.pages.units import count, fixed, number, percent
from zerofit.report.rows import Row

MEMORY = ("weights", "gradients", "optimizer", "rest")
"""What a rank's peak is made of, from the axis outwards."""


class Machine(Read):
    """What it ran on."""

    device: str
    name: str
    count: int
    memory_gib: float


class Comparison(Read):
    """compare.json."""

    format: int
    recipe: str
    created: str = ""
    hardware: Machine
    precision: str = ""
    global_batch: int
    steps: int
    baseline: str = ""
    limit_gib: float | None = None
    rows: tuple[Row, ...]
    verdict: tuple[str, ...] = ()


def page(directory: Path) -> Page:
    """The page of the comparison in `directory`. Raises UserError where its compare.json is damaged."""
    whole = parsed(directory / "compare.json", Comparison)
    parts = (overview(directory, whole), memory(whole), speed(whole), losses(whole), _about(directory, whole))
    sections = [one for one in parts if one is not None]
    machine = whole.hardware
    where = f"{machine.count} × {machine.name}" if machine.device == "cuda" else machine.name
    about = f"{where} · {whole.precision} · {whole.steps:,} steps of {whole.global_batch:,} samples"
    ran = sum(row.ran for row in whole.rows)
    tone: Tone = "good" if ran == len(whole.rows) else "plain"
    status = (f"{ran} of {len(whole.rows)} ran", tone)
    return Page("comparison", whole.recipe, (about,), headline(whole), sections, status)


def headline(whole: Comparison) -> list[Figure]:
    """The best of each kind."""
    ran = [row for row in whole.rows if row.ran]
    figures = [Figure("Compared", str(len(whole.rows)), "", f"baseline {whole.baseline}" if whole.baseline else "")]
    fast = [row for row in ran if row.samples_s is not None]
    if fast:
        best = max(fast, key=lambda row: row.samples_s or 0.0)
        figures.append(Figure("Fastest", best.label, "", f"{number(best.samples_s)} samples/s"))
    known = [row for row in ran if row.peak_allocated_gib is not None]
    if known:
        least = min(known, key=lambda row: row.peak_allocated_gib or 0.0)
        figures.append(Figure("Least memory", least.label, "", f"{fixed(least.peak_allocated_gib)} GiB a rank"))
    deviations = [row.loss_deviation for row in ran if row.loss_deviation is not None]
    if deviations:
        figures.append(Figure("Losses differ by", _power(max(deviations)), "", "relative, at most"))
    if whole.limit_gib is not None:
        figures.append(Figure("A card holds", fixed(whole.limit_gib, 1), "GiB", whole.hardware.name))
    return figures


COLUMNS: tuple[tuple[str, Callable[[Row], float | None], Callable[[float | None], str]], ...] = (
    ("ranks", lambda row: row.ranks, count),
    ("micro-batch", lambda row: row.micro_batch, count),
    ("peak, GiB", lambda row: row.peak_allocated_gib, fixed),
    ("predicted, GiB", lambda row: row.predicted_gib, fixed),
    ("host, GiB", lambda row: row.host_gib, fixed),
    ("samples/s", lambda row: row.samples_s, number),
    ("per rank", lambda row: row.samples_s_per_gpu, number),
    ("tokens/s", lambda row: row.tokens_s, count),
    ("MFU", lambda row: row.mfu, percent),
    ("step p50, ms", lambda row: row.step_ms_p50, number),
    ("p99, ms", lambda row: row.step_ms_p99, number),
    ("scaling", lambda row: row.scaling_efficiency, percent),
    ("largest micro-batch", lambda row: row.max_micro_batch, count),
)
"""Of the table; one that no row has is left out."""


def overview(directory: Path, whole: Comparison) -> Section:
    """The verdict, all rows, and memory against speed."""
    parts: list[Part] = [Notes("Verdict", whole.verdict)] if whole.verdict else []
    shown = [column for column in COLUMNS if any(column[1](row) is not None for row in whole.rows)]
    rows = [(row.label, *(say(of(row)) for _, of, say in shown), "" if row.ran else row.status) for row in whole.rows]
    strong = [i for i, row in enumerate(whole.rows) if row.label == whole.baseline]
    pages = {i: f"{row.run}/{PAGE}" for i, row in enumerate(whole.rows) if row.ran and _inside(row.run)}
    links = {i: page for i, page in pages.items() if (directory / page).is_file()}
    head = ("strategy", *(name for name, _, _ in shown), "")
    note = "Bold: the baseline of the losses." if strong else ""
    words = (0, len(head) - 1)
    parts.append(Table("Strategies", head, rows, words=words, note=note, strong=strong, links=links))
    missing = [f"{row.label}: {row.why or row.status}" for row in whole.rows if not row.ran]
    if missing:
        parts.append(Notes("Did not run", missing))
    trade = _trade(whole)
    return Section("overview", "Overview", [*parts, *([trade] if trade else [])])


def _inside(run: str) -> bool:
    return bool(run) and not Path(run).is_absolute() and ".." not in Path(run).parts and ":" not in run


def _trade(whole: Comparison) -> Chart | None:
    rows = [row for row in whole.rows if row.ran and row.peak_allocated_gib is not None and row.samples_s is not None]
    if len(rows) < 2:
        return None
    data, keys = [], []
    for at, row in enumerate(rows):
        mark = MARKS[at % len(MARKS)]
        data.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": plain(row.label),
                "x": [rounded(row.peak_allocated_gib)],
                "y": [rounded(row.samples_s)],
                "hovertemplate": f"{plain(row.label)}<br>%{{x:.2f}} GiB, %{{y:,.3~r}} samples/s<extra></extra>",
                "marker": {"symbol": mark, "size": 13},
                "meta": {"colour": at % 7},
            }
        )
        keys.append(Key(row.label, at % 7, "mark", mark, (at,)))
    layout: dict[str, object] = {
        "xaxis": {"title": {"text": "peak memory per rank, GiB"}, "rangemode": "tozero", "tickformat": ",~r"},
        "yaxis": {"rangemode": "tozero"},
        "hovermode": "closest",
    }
    if whole.limit_gib is not None:
        layout["limit"] = {"text": f"the card's {whole.limit_gib:.0f} GiB", "at": whole.limit_gib}
    cells = [(row.label, fixed(row.peak_allocated_gib), number(row.samples_s)) for row in rows]
    title = "Memory against speed"
    return Chart(
        name="trade",
        title=title,
        unit="samples/s",
        summary=f"Samples/s of {len(rows)} strategies over their memory per rank; the table has the figures.",
        data=data,
        layout=layout,
        table=Table(title, ("strategy", "peak, GiB", "samples/s"), cells),
        keys=keys,
        note="Up and to the left is better.",
        height=380,
        wide=True,
    )


def memory(whole: Comparison) -> Section | None:
    """The stack of each strategy, and the card's limit."""
    rows = [row for row in whole.rows if row.peak_allocated_gib is not None or row.needed_gib is not None]
    if not rows:
        return None
    split = any(row.memory for row in rows)
    named: list[tuple[str, Sequence[float | None]]] = []
    if split:
        kinds = [kind for kind in MEMORY if any(row.memory and kind in row.memory for row in rows)]
        named = [(kind, [row.memory.get(kind) if row.memory else None for row in rows]) for kind in kinds]
    unsplit = [row.peak_allocated_gib if not row.memory and row.ran else None for row in rows]
    if any(value is not None for value in unsplit):
        named.append(("peak" if not split else "not taken apart", unsplit))
    colours = [0, 1, 2, 5, 4][: len(named)] if split else [0]
    needed = [row.needed_gib if not row.ran else None for row in rows]
    if any(value is not None for value in needed):
        named.append(("would need", needed))
        colours.append(3)
    predicted = [row.predicted_gib for row in rows]
    marks = [("predicted", predicted)] if any(value is not None for value in predicted) else []
    limit = None if whole.limit_gib is None else (f"the card's {whole.limit_gib:.0f} GiB", whole.limit_gib)
    labels = [row.label for row in rows]
    chart = bars(
        "memory",
        "Peak memory per rank",
        "GiB",
        labels,
        named,
        stacked=True,
        limit=limit,
        marks=marks,
        totals=[row.peak_allocated_gib if row.ran else row.needed_gib for row in rows],
        colours=(*colours, 6),
        wide=True,
        head="strategy",
        say=fixed,
    )
    parts: list[Part] = [chart]
    ran = [row for row in rows if row.ran]
    for name, title, values in (
        ("host", "Host memory of all ranks", [row.host_gib for row in ran]),
        ("reserved", "Reserved by the allocator, per rank", [row.peak_reserved_gib for row in ran]),
    ):
        if any(values):
            labels = [row.label for row in ran]
            parts.append(bars(name, title, "GiB", labels, [(name, values)], head="strategy", say=fixed))
    return Section("memory", "Memory", parts)


def speed(whole: Comparison) -> Section | None:
    """Throughput, times of steps and what they are spent on."""
    rows = [row for row in whole.rows if row.ran]
    labels = [row.label for row in rows]
    parts: list[Part] = []
    fields: tuple[tuple[str, str, str, dict[str, Callable[[Row], float | None]]], ...] = (
        ("samples", "Throughput", "samples/s, all ranks", {"samples/s": lambda row: row.samples_s}),
        ("per-gpu", "Throughput per rank", "samples/s", {"samples/s": lambda row: row.samples_s_per_gpu}),
        ("tokens", "Tokens", "tokens/s, all ranks", {"tokens/s": lambda row: row.tokens_s}),
        ("mfu", "Model FLOPs utilisation", "%", {"MFU": lambda row: _times(row.mfu)}),
        ("scaling", "Scaling efficiency", "%", {"efficiency": lambda row: _times(row.scaling_efficiency)}),
        ("step", "Time of a step", "ms", {"median": lambda row: row.step_ms_p50, "p99": lambda row: row.step_ms_p99}),
        (
            "shares",
            "Shares of a step",
            "% of its time",
            {
                "communication, exposed": lambda row: _times(row.exposed_communication_share),
                "optimizer": lambda row: _times(row.optimizer_share),
                "waiting for data": lambda row: _times(row.data_share),
            },
        ),
    )
    for name, title, unit, of in fields:
        every = ((part, [value(row) for row in rows]) for part, value in of.items())
        named = [(part, values) for part, values in every if any(value is not None for value in values)]
        if named:
            parts.append(bars(name, title, unit, labels, named, head="strategy"))
    return Section("speed", "Speed", parts) if parts else None


def _times(share: float | None) -> float | None:
    return None if share is None else 100 * share


def losses(whole: Comparison) -> Section | None:
    """Whether they train the same."""
    rows = [row for row in whole.rows if row.loss]
    if not rows:
        return None
    series = [Series(row.label, *_curve(row.loss)) for row in rows]
    parts: list[Part] = [lines("loss", "Training loss", "nats", series, wide=True, digits=7)]
    base = next((row for row in rows if row.label == whole.baseline), None)
    if base is not None:
        apart = [
            Series(row.label, *_curve([_apart(*pair) for pair in zip(row.loss, base.loss, strict=False)]), colour=at)
            for at, row in enumerate(rows)
            if row is not base
        ]
        shown = [one for one in apart if np.isfinite(one.y).any()]
        if shown:
            title, note = (
                f"Deviation from {whole.baseline}",
                "Relative; steps that are equal to the last bit have no point.",
            )
            parts.append(lines("deviation", title, "", shown, log=True, wide=True, note=note))
    cells = [(row.label, _power(row.loss_deviation)) for row in rows]
    parts.append(Table("Largest relative deviation of a loss", ("strategy", "deviation"), cells, wide=False))
    return Section("loss", "Loss", parts)


def _power(value: float | None) -> str:
    """2.0e-7."""
    return f"{value:.1e}".replace("e-0", "e-") if value else number(value)


def _curve(values: Sequence[float | None]) -> tuple[Floats, Floats]:
    return np.arange(1.0, len(values) + 1), np.array(values, dtype=np.float64)  # null becomes NaN


def _apart(value: float | None, other: float | None) -> float | None:
    if value is None or other is None or value == other:
        return None
    return abs(value - other) / max(abs(other), 1e-30)


def _about(directory: Path, whole: Comparison) -> Section:
    machine = whole.hardware
    rows = [
        ("recipe", whole.recipe),
        ("made", whole.created),
        ("device", machine.name),
        ("devices", count(machine.count)),
        ("memory", f"{machine.memory_gib:,.1f} GiB"),
        ("precision", whole.precision),
        ("global batch", count(whole.global_batch)),
        ("steps", count(whole.steps)),
        ("baseline", whole.baseline),
    ]
    runs = "\n".join(
        f"zerofit report {here(directory / row.run)}" for row in whole.rows if row.ran and _inside(row.run)
    )
    parts: list[Part] = [Facts("Compared", rows)]
    if runs:
        parts.append(Code("A page of each run", runs))
    return Section("about", "Configuration", parts)
