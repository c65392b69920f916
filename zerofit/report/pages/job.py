"""The page of a job of stages: what came of each, beside one another."""

from __future__ import annotations

from pathlib import Path

from zerofit.plan.files import RUN_FILE, read_spec
from zerofit.plan.job import read_job
from zerofit.report.pages import configuration, language
from zerofit.report.pages import run as run_page
from zerofit.report.pages.charts import Series, lines
from zerofit.report.pages.files import PAGE, finite
from zerofit.report.pages.parts import Chart, Code, Figure, Page, Section, Table, Tone
from zerofit.report.pages.run import Run
from zerofit.report.pages.units import NONE, count, duration, fixed, number


def page(directory: Path) -> Page:
    """The page of the job in `directory`. Raises UserError where its job.json, or a stage's run.json, is damaged."""
    job = read_job(directory)
    runs = {
        path.name: Run(path, read_spec(path)) if (path / RUN_FILE).is_file() else None for path in job.runs(directory)
    }
    begun = {name: run for name, run in runs.items() if run is not None}
    finished = sum(run.exit == "finished" for run in begun.values())
    tone: Tone = "good" if finished == len(runs) else "plain"
    alerts = [(f"{name}: {line}", more) for name, run in begun.items() for line, more in run_page.alerts(run)]
    last = next(reversed(begun.values()), None)
    return Page(
        what="job of stages",
        title=job.name,
        subtitle=(f"{len(runs)} stages: {', then '.join(runs)}",),
        figures=_headline(last),
        sections=[Section("stages", "Stages", [_table(runs), *_curves(begun)]), _commands(directory)],
        status=(f"{finished} of {len(runs)} finished", tone),
        alerts=alerts,
    )


def _headline(last: Run | None) -> list[Figure]:
    return [] if last is None else run_page.headline(last)


def _table(runs: dict[str, Run | None]) -> Table:
    rows, links = [], {}
    for at, (name, run) in enumerate(runs.items()):
        if run is None:
            rows.append((name, "not begun", *[NONE] * 7))
            continue
        if (run.directory / PAGE).is_file():
            links[at] = f"{name}/{PAGE}"
        result, test = run.result, run.result.get("test", {})
        rows.append(
            (
                name,
                run.exit or "no result",
                run.spec.strategy.name,
                count(run.step),
                language.in_short(test) or NONE,
                fixed(finite(test.get("loss")), 4),
                fixed(finite(result.get("peak_alloc_gib"))),
                number(finite(result.get("samples_s"))),
                duration(finite(result.get("wall_s"))),
            )
        )
    head = ("stage", "", "strategy", "steps", "test", "test loss", "peak, GiB", "samples/s", "time")
    return Table("Stages", head, rows, words=(0, 1, 2, 4), links=links, note="Figures above are of the last stage.")


def _curves(runs: dict[str, Run]) -> list[Chart]:
    charts = []
    for field, title, unit, scale in (
        ("loss", "Training loss", "nats", 1.0),
        ("val_top1", "Validation top-1", "%", 100.0),
        ("val_token_accuracy", "Validation, tokens right", "%", 100.0),
        ("reward", "Reward", "mean", 1.0),
    ):
        series = []
        for at, (name, run) in enumerate(runs.items()):
            if field in run.columns:
                column = run.columns[field]
                series.append(Series(name, column.steps, scale * column.values, colour=at))
        if series:
            charts.append(lines(field.replace("_", "-"), title, unit, series, x_title="optimizer step of the stage"))
    return charts


def _commands(directory: Path) -> Section:
    shown = configuration.here(directory)
    text = f"zerofit train --resume {shown}\nzerofit report {shown}"
    return Section("reproduce", "Reproduce", [Code("Go on with this job", text)])
