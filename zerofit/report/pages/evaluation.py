"""The page of an evaluation of a language model: how many problems it solves, how sure that is, and what it wrote."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from zerofit.report.pages.charts import plain, rounded
from zerofit.report.pages.estimates import Estimate, interval, of_run, sampled, whiskers
from zerofit.report.pages.files import PAGE, Read, finite, parsed
from zerofit.report.pages.parts import Chart, Facts, Figure, Page, Part, Section, Table, Writing, Writings
from zerofit.report.pages.units import NONE, count, duration, fixed, percent
from zerofit.report.pages.writing import evenly_drawn, pieces, rows, shown

ROWS = "rollouts.parquet"
COLUMNS = ("problem", "prompt", "completion", "gold", "answer", "correct", "tokens")
EACH = 6
"""Completions that are shown of the right ones, and of the wrong ones."""
KINDS = {"pass": "pass@k: at least one of k completions is right", "maj": "maj@k: the commonest of k answers is right"}
ALWAYS = "commonest answer"


class Compared(Read):
    """With another evaluation of the same problems."""

    model: str = ""
    evaluation: str = ""
    first_only: int
    second_only: int
    p_value: float
    other: Estimate | None = Field(default=None, alias="pass@1")
    difference: Estimate | None = None


class Evaluation(Read):
    """evaluation.json."""

    model: str
    data: str
    samples: int
    sampling: dict[str, Any]
    seed: int
    figures: dict[str, Estimate | Any]
    majority_baseline: float | None = None
    compared_with: Compared | None = None
    wall_s: float | None = None
    tokens_s: float | None = None

    @property
    def estimates(self) -> dict[str, Estimate]:
        """pass@k and maj@k, in their order."""
        named = {name: value for name, value in self.figures.items() if name.partition("@")[0] in KINDS}
        return {name: value for name, value in named.items() if isinstance(value, Estimate)}


def page(file: Path) -> Page:
    """The page of the evaluation.json at `file`. Raises UserError where it is damaged."""
    made = parsed(file, Evaluation)
    sections = [Section("results", "Results", _results(made))]
    wrote = _written(rows(file.parent / ROWS, COLUMNS))
    if wrote:
        sections.append(Section("completions", "Completions", wrote, "Reasoning is grey."))
    return Page("evaluation", Path(made.model).name or made.model, (made.data, _how(made)), _headline(made), sections)


def listed(directory: Path) -> Table | None:
    """Evaluations of a run, for its page; null where there are none."""
    cells, links = list[tuple[str, ...]](), dict[int, str]()
    for file in of_run(directory, ROWS):
        made = parsed(file, Evaluation)
        if (file.parent / PAGE).is_file():
            links[len(cells)] = f"evaluations/{file.parent.name}/{PAGE}"
        said = ", ".join(f"{name} {interval(value)}" for name, value in made.estimates.items())
        cells.append((file.parent.name, Path(made.model).name, made.data, said, count(made.samples)))
    head = ("evaluation", "model", "data", "result", "completions each")
    return Table("Evaluations of problems", head, cells, words=(0, 1, 2, 3), links=links) if cells else None


def _headline(made: Evaluation) -> list[Figure]:
    figures = [
        Figure(name, fixed(100 * one.value, 1), "%", f"{100 * one.low:.1f} to {100 * one.high:.1f} %")
        for name, one in list(made.estimates.items())[:4]
    ]
    if made.majority_baseline is not None:
        figures.append(Figure("Commonest answer", fixed(100 * made.majority_baseline, 1), "%", "always given"))
    figures.append(Figure("Problems", count(finite(made.figures.get("problems")))))
    if made.wall_s is not None:
        note = "" if made.tokens_s is None else f"{made.tokens_s:,.0f} tokens/s"
        figures.append(Figure("Time", duration(made.wall_s), "", note))
    return figures


def _how(made: Evaluation) -> str:
    each = "1 completion each" if made.samples == 1 else f"{made.samples:,} completions each"
    return f"{each}, {sampled(made.sampling, made.seed)}"


def _results(made: Evaluation) -> list[Part]:
    parts: list[Part] = []
    if made.estimates:
        parts.append(_solved(made))
    if made.compared_with is not None:
        parts.append(_compared(made.compared_with))
    tokens = made.figures.get("tokens")
    tokens = tokens if isinstance(tokens, dict) else {}
    facts = [
        ("problems", count(finite(made.figures.get("problems")))),
        ("completions", count(finite(made.figures.get("samples")))),
        ("with an answer", percent(finite(made.figures.get("answered")))),
        ("cut off", percent(finite(made.figures.get("truncated")))),
        ("tokens, mean", count(finite(tokens.get("mean")))),
        ("tokens, longest", count(finite(tokens.get("max")))),
    ]
    parts.append(Facts("Completions", [fact for fact in facts if fact[1] != NONE]))
    return parts


def _solved(made: Evaluation) -> Chart:
    """Bars with whiskers, and one of what always giving the commonest answer gets."""
    names, every = list(made.estimates), list(made.estimates.values())
    data = [
        {
            **_bars("solved", 0, names, [one.value for one in every]),
            "error_x": whiskers(every),
        }
    ]
    cells = [(name, percent(one.value), percent(one.low), percent(one.high)) for name, one in made.estimates.items()]
    if made.majority_baseline is not None:
        data.append(_bars(ALWAYS, 3, [ALWAYS], [made.majority_baseline]))
        cells.append((ALWAYS, percent(made.majority_baseline), NONE, NONE))
    said = "; ".join(KINDS[kind] for kind in dict.fromkeys(name.partition("@")[0] for name in names))
    return Chart(
        name="solved",
        title="Problems solved",
        unit="",
        summary="; ".join(f"{name} {interval(one)}" for name, one in made.estimates.items()),
        data=data,
        layout={
            "barmode": "overlay",
            "yaxis": {"autorange": "reversed", "type": "category", "labels": True},
            "xaxis": {"title": {"text": "% of problems"}, "range": [0, 100]},
            "hovermode": "y unified",
        },
        table=Table("Problems solved", ("", "solved", "from", "to"), cells),
        note=f"With 95 % intervals over problems. {said}.",
        height=90 + 36 * len(cells),
        wide=True,
    )


def _bars(name: str, colour: int, labels: Sequence[str], shares: Sequence[float]) -> dict[str, Any]:
    return {
        "type": "bar",
        "orientation": "h",
        "name": name,
        "y": [plain(label) for label in labels],
        "x": [rounded(100 * share) for share in shares],
        "hovertemplate": "%{x:,.1f} %",
        "marker": {"pattern": {"shape": ""}},
        "meta": {"colour": colour},
    }


def _compared(other: Compared) -> Facts:
    """McNemar's test looks at problems that one of the two alone solves."""
    better = "this one" if other.first_only > other.second_only else "the other"
    sure = "no sign that either is better" if other.p_value >= 0.05 else f"{better} is better"
    difference = other.difference
    facts = [
        ("with", " · ".join(part for part in (other.model, other.evaluation) if part)),
        ("its pass@1", NONE if other.other is None else interval(other.other)),
        ("difference", NONE if difference is None else f"{100 * difference.value:+.1f} points, {_points(difference)}"),
        ("solved by this one alone", count(other.first_only)),
        ("by the other alone", count(other.second_only)),
        ("McNemar's test", f"p = {other.p_value:.2g}: {sure}"),
    ]
    return Facts("Compared", [fact for fact in facts if fact[1] not in ("", NONE)])


def _points(one: Estimate) -> str:
    return f"95 %: {100 * one.low:+.1f} to {100 * one.high:+.1f}"


def _written(every: Sequence[Mapping[str, Any]]) -> list[Part]:
    parts: list[Part] = []
    for right, title in ((False, "Wrong"), (True, "Right")):
        those = [dict(row) for row in every if row["correct"] is right]
        if those:
            drawn = [_writing(row) for row in evenly_drawn(those, EACH)]
            parts.append(Writings(title, drawn, f"{len(drawn)} of {len(those):,}, spread over all of them."))
    return parts


def _writing(row: Mapping[str, Any]) -> Writing:
    answer = row["answer"]
    values = [
        ("problem", str(row["problem"])),
        ("answer", "none found" if answer is None else str(answer)),
        ("right answer", str(row["gold"])),
        ("tokens", count(finite(row["tokens"])) + ("" if row.get("stopped", True) else ", cut off")),
    ]
    return Writing(shown(str(row["prompt"])), pieces(str(row["completion"])), values, bool(row["correct"]))
