"""What a test showed: samples with what the model said of them, and which classes it takes for which."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import model_validator

from zerofit.report.pages.charts import plain
from zerofit.report.pages.files import Read, found, picture
from zerofit.report.pages.parts import Chart, Picture, Pictures, Table
from zerofit.report.pages.units import count, percent

SHOWN = 30
"""Classes of a confusion matrix that are drawn, at most."""
WRITTEN = 15
"""Classes up to which counts are written into its cells."""
PAIRS = 12


class Sample(Read):
    """One of test.json."""

    image: str
    label: int
    predicted: int
    top: tuple[tuple[int, float], ...]


class Test(Read):
    """test.json."""

    classes: tuple[str, ...]
    confusion: tuple[tuple[int, ...], ...] = ()
    """Rows are true classes."""
    samples: tuple[Sample, ...] = ()

    @model_validator(mode="after")
    def _of_its_classes(self) -> Test:
        known = range(len(self.classes))
        for one in self.samples:
            if not one.top or any(number not in known for number in (one.label, one.predicted, *dict(one.top))):
                raise ValueError(f"{one.image} has a class that is none of the {len(known)}")
        if any(len(row) != len(self.confusion) for row in self.confusion):
            raise ValueError("the confusion matrix is not square")
        return self


def read(directory: Path) -> Test | None:
    """The run's test.json; null where there is none."""
    return found(directory / "test.json", Test)


def pictures(directory: Path, test: Test) -> Pictures | None:
    """Its samples; null without any."""
    items = []
    for one in test.samples:
        source = picture(directory, one.image)
        if source is None:
            continue
        top = [(test.classes[number], percent(share)) for number, share in one.top]
        label, predicted = test.classes[one.label], test.classes[one.predicted]
        items.append(Picture(source, label, predicted, top, one.label == one.predicted))
    if not items:
        return None
    wrong = sum(not one.right for one in items)
    note = f"{wrong} that it gets wrong and {len(items) - wrong} that it gets right, drawn at random: the true class, "
    return Pictures("Samples of the test", items, note + "what the model says, and how sure it is.")


def confusion(test: Test) -> list[Chart | Table]:
    """The matrix, and the mistakes that are made most often."""
    matrix, classes = test.confusion, test.classes
    if not matrix or len(matrix) != len(classes):
        return []
    mistakes = sorted(
        ((row[j], i, j) for i, row in enumerate(matrix) for j in range(len(row)) if i != j and row[j]),
        key=lambda one: (-one[0], one[1], one[2]),
    )
    rows = [
        (classes[i], classes[j], count(number), percent(number / sum(matrix[i]))) for number, i, j in mistakes[:PAIRS]
    ]
    total = sum(map(sum, matrix))
    wrong = sum(number for number, _, _ in mistakes)
    note = f"{wrong:,} of {total:,} samples are taken for another class" + (
        f", in {len(mistakes):,} kinds of mistakes." if len(mistakes) > PAIRS else "."
    )
    table = Table(
        "Most frequent mistakes",
        ("is", "taken for", "samples", "of its class"),
        rows,
        words=(0, 1),
        note=note,
        wide=len(classes) > WRITTEN,
    )
    return [_matrix(matrix, classes), table]


def _matrix(matrix: Sequence[Sequence[int]], classes: Sequence[str]) -> Chart:
    shown, note = list(range(len(classes))), ""
    if len(classes) > SHOWN:
        errors = [sum(row) + sum(other[i] for other in matrix) - 2 * row[i] for i, row in enumerate(matrix)]
        shown = sorted(sorted(shown, key=lambda i: -errors[i])[:SHOWN])
        note = f"The {SHOWN} of {len(classes):,} classes that are confused most. "
    names = [plain(f"{classes[i]}") for i in shown]
    axis = [short(name) for name in names]
    totals = {i: max(1, sum(matrix[i])) for i in shown}
    right = [[100 * matrix[i][j] / totals[i] if i == j else None for j in shown] for i in shown]
    wrong = [[100 * matrix[i][j] / totals[i] if i != j and matrix[i][j] else None for j in shown] for i in shown]
    counts = [[f"{matrix[i][j]:,}" if matrix[i][j] else "" for j in shown] for i in shown]
    places = range(len(shown))
    heat: dict[str, Any] = {
        "type": "heatmap",
        "x": list(range(len(shown))),
        "y": list(range(len(shown))),
        "customdata": [[[names[a], names[b], counts[a][b]] for b in places] for a in places],
        "hovertemplate": "%{customdata[0]} taken for %{customdata[1]}:<br>%{customdata[2]} samples, %{z:.1f} %",
        "showscale": False,
        "xgap": 1,
        "ygap": 1,
        "zmin": 0,
    }
    written: dict[str, Any] = {"texttemplate": "%{text}", "textfont": {"size": 12}} if len(shown) <= WRITTEN else {}
    texts = [[[counts[a][b] if (a == b) == own else "" for b in places] for a in places] for own in (True, False)]
    worst = max((value for row in wrong for value in row if value is not None), default=1.0)
    ticks = {
        "tickmode": "array",
        "tickvals": list(range(len(shown))),
        "ticktext": axis,
        "showgrid": False,
        "zeroline": False,
    }
    table = [(classes[i], *(f"{matrix[i][j]:,}" for j in shown)) for i in shown]
    return Chart(
        name="confusion",
        title="Confusion matrix",
        unit="",
        summary="Which classes are taken for which; the table has the counts.",
        data=[
            {
                **heat,
                **written,
                "text": texts[0],
                "name": "right",
                "z": right,
                "zmax": 100,
                "meta": {"colour": 0, "from": 0.12},
            },
            {
                **heat,
                **written,
                "text": texts[1],
                "name": "wrong",
                "z": wrong,
                "zmax": worst,
                "meta": {"colour": 1, "from": 0.25},
            },
        ],
        layout={
            "xaxis": {
                **ticks,
                "title": {"text": "predicted"},
                "side": "bottom",
                "tickangle": -90 if _long(axis) else 0,
            },
            "yaxis": {**ticks, "title": {"text": "true class"}, "autorange": "reversed"},
        },
        table=Table("Confusion matrix", ("true \\ predicted", *(classes[i] for i in shown)), table),
        note=f"{note}Shares of each true class: right in the diagonal, mistakes in the other colour.",
        height=max(320, 120 + 22 * len(shown)) if len(shown) <= WRITTEN else 640,
        wide=len(shown) > WRITTEN,
    )


def short(name: str, most: int = 18) -> str:
    """A name as an axis has room for."""
    return name if len(name) <= most else f"{name[: most // 2 - 1]}…{name[-most // 2 :]}"


def _long(names: Sequence[str]) -> bool:
    return max(map(len, names), default=0) > 3
