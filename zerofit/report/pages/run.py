"""The page of a run: how it went, what it can do, what it was. It may have ended early, or be running."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from zerofit.plan.files import read_spec
from zerofit.plan.spec import RunSpec
from zerofit.report.pages import completions, configuration, evaluation, language, memory, predictions, shapes, timeline
from zerofit.report.pages.curves import curves
from zerofit.report.pages.files import Column, columns, finite, lines, mapping
from zerofit.report.pages.parts import Figure, Page, Part, Section, Table, Tone
from zerofit.report.pages.units import count, duration, fixed, number, percent


@dataclass(frozen=True)
class Run:
    """What its directory holds."""

    directory: Path
    spec: RunSpec

    @cached_property
    def result(self) -> dict[str, Any]:
        """result.json; empty where there is none."""
        return mapping(self.directory / "result.json")

    @cached_property
    def metrics(self) -> list[dict[str, Any]]:
        """metrics.jsonl."""
        return lines(self.directory / "metrics.jsonl")

    @cached_property
    def columns(self) -> dict[str, Column]:
        """Its fields."""
        return columns(self.metrics)

    @cached_property
    def errors(self) -> list[dict[str, Any]]:
        """What ranks that failed wrote, the first to fail first."""
        records = [mapping(path) for path in sorted(self.directory.glob("logs/rank-*.error.json"))]
        return sorted((one for one in records if one), key=lambda one: finite(one.get("time")) or 0.0)

    @property
    def exit(self) -> str | None:
        """finished, interrupted, failed; null where nothing says how it ended."""
        end = self.result.get("exit")
        return str(end) if end else ("failed" if self.errors else None)

    @property
    def step(self) -> int:
        """The last step that metrics.jsonl has."""
        return int(self.columns["step"].values.max()) if self.columns else 0


def page(directory: Path) -> Page:
    """The page of the run in `directory`. Raises UserError where its run.json, or its trace, is damaged."""
    run = Run(directory, read_spec(directory))
    spec = run.spec
    sections = [section for make in SECTIONS if (section := make(run)) is not None]
    sizes = spec.batches
    about = (
        f"{configuration.strategy(spec)} on {sizes.ranks} {'rank' if sizes.ranks == 1 else 'ranks'} · "
        f"{spec.hardware.name} · {spec.precision} · {sizes.total_steps:,} steps of {sizes.global_batch:,} "
        f"{'samples' if spec.grpo is None else 'completions'}"
    )
    description = (spec.recipe.description,) if spec.recipe.description else ()
    return Page(
        what="run",
        title=spec.recipe.name or directory.name,
        subtitle=(*description, about),
        figures=headline(run),
        sections=sections,
        status=status(run),
        alerts=alerts(run),
    )


def status(run: Run) -> tuple[str, Tone]:
    """One word, or two."""
    tones: dict[str, Tone] = {"finished": "good", "failed": "bad"}
    return (run.exit or "no result", tones.get(run.exit or "", "plain"))


def alerts(run: Run) -> list[tuple[str, str]]:
    """How a run ended that did not finish."""
    at = f"after step {run.step:,} of {run.spec.batches.total_steps:,}" if run.step else "before its first step"
    if run.exit == "finished":
        return []
    if run.exit == "interrupted":
        signal = f" by signal {run.result['signal']}" if "signal" in run.result else ""
        return [(f"The run was interrupted{signal} {at}.", "")]
    if run.exit == "failed":
        first = run.errors[0] if run.errors else {}
        message = first.get("message") or run.result.get("error", "no reason was written")
        rank = first.get("rank", run.result.get("rank"))
        who = "" if rank is None else f", on rank {rank}"
        return [(f"The run failed {at}{who}: {message}", str(first.get("traceback", "")))]
    return [(f"There is no result: the run is still going on, or was ended from outside, {at}.", "")]


def headline(run: Run) -> list[Figure]:
    """What one wants to know first."""
    result, spec = run.result, run.spec
    figures: list[Figure] = []
    test = result.get("test", {})
    split = test.get("split", "test").capitalize()
    if "top1" in test:
        right = f"{round(test['top1'] * test['samples']):,} of {test['samples']:,}" if "samples" in test else ""
        top5 = f"top-5 {percent(test.get('top5'))}" if len(spec.images.classes) > 5 else ""
        note = "; ".join(part for part in (right, top5) if part)
        figures.append(Figure(f"{split} top-1", f"{100 * test['top1']:.2f}", "%", note))
        figures.append(Figure(f"{split} loss", number(test.get("loss"), 4), "nats"))
    else:
        figures += language.tested(test) or _so_far(run)
    if "knn_top1" in result:
        figures.append(Figure("Nearest neighbours", f"{100 * result['knn_top1']:.2f}", "%", "top-1, k = 20, cosine"))
    memory = finite(result.get("peak_alloc_gib"))
    if memory is not None:
        kind = "allocated on" if spec.hardware.device == "cuda" else "resident, of"
        reserved = finite(result.get("peak_reserved_gib"))
        note = f"{kind} {spec.hardware.memory_gib:,.0f} GiB" + (f"; {reserved:.2f} reserved" if reserved else "")
        if spec.prediction is not None:
            note += f"; {spec.prediction.peak_gib:.2f} predicted"
        figures.append(Figure("Peak memory per rank", fixed(memory), "GiB", note))
    speed = finite(result.get("samples_s"))
    if speed is not None:
        note = f"{number(speed / spec.batches.ranks)} per rank" if spec.batches.ranks > 1 else ""
        counted = "samples/s" if spec.grpo is None else "completions/s"
        figures.append(Figure("Throughput", number(speed), counted, note))
    if "mfu" in run.columns:
        figures.append(Figure("MFU", fixed(100 * float(np.median(run.columns["mfu"].values)), 1), "%", "median"))
    if finite(result.get("wall_s")) is not None:
        steps = result.get("steps", run.step)
        figures.append(Figure("Time", duration(result["wall_s"]), "", f"{steps:,} steps" if steps else ""))
    return figures


LATEST = (("loss", "Training loss", 1, "nats"), ("val_top1", "Validation top-1", 100, "%"), *language.LATEST)


def _so_far(run: Run) -> list[Figure]:
    """The latest figures of a run that was not tested."""
    figures = [Figure("Steps", count(run.step), "", f"of {run.spec.batches.total_steps:,}")]
    for field, name, scale, unit in LATEST:
        if field in run.columns:
            step, value = run.columns[field].steps[-1], run.columns[field].values[-1]
            figures.append(Figure(name, number(scale * float(value), 4), unit, f"at step {step:,.0f}"))
    return figures


def training(run: Run) -> Section | None:
    """Curves."""
    charts = curves(run.columns)
    if not charts:
        return None
    smoothed = any(trace["opacity"] < 1 for chart in charts for trace in chart.data)
    note = "Bold lines are running means, with every logged step behind them." if smoothed else ""
    return Section("training", "Training", charts, note)


def tested(run: Run) -> Section | None:
    """Samples, confusion, heads of a probe, evaluations."""
    parts: list[Part] = []
    test = predictions.read(run.directory)
    if test is not None:
        shown = predictions.pictures(run.directory, test)
        parts += [*([] if shown is None else [shown]), *predictions.confusion(test)]
    elif "confusion" in run.result.get("test", {}):
        body = {"classes": run.spec.images.classes, "confusion": run.result["test"]["confusion"]}
        parts += predictions.confusion(predictions.Test.model_validate(body))
    tables = (_heads(run), _evaluations(run), evaluation.listed(run.directory))
    parts += [table for table in tables if table is not None]
    parts += shapes.of_a_run(run.directory)
    return Section("test", "Test", parts) if parts else None


def _heads(run: Run) -> Table | None:
    heads = run.result.get("heads")
    if not heads:
        return None
    head = ("learning rate ×", "BatchNorm", "held-out top-1", "held-out loss", "training loss", "")
    chosen = run.result.get("chosen")
    rows = [
        (
            number(finite(one.get("lr_scale"))),
            "with" if one.get("batch_norm") else "without",
            percent(finite(one.get("top1")), 2),
            fixed(finite(one.get("held_out_loss")), 4),
            fixed(finite(one.get("loss")), 4),
            "chosen" if one == chosen else "",
        )
        for one in heads
    ]
    strong = [i for i, one in enumerate(heads) if one == chosen]
    return Table("Heads", head, rows, words=(1, 5), strong=strong)


def _evaluations(run: Run) -> Table | None:
    rows = []
    for path in sorted(run.directory.glob("evaluations/*.json"), key=lambda one: (len(one.stem), one.stem)):
        body = mapping(path)
        test = body.get("test", {})
        data = body.get("data") or {}
        what = data.get("path") or data.get("source") or "the run's own"
        cells = (percent(test.get("top1"), 2), fixed(test.get("loss"), 4), count(test.get("samples")))
        rows.append((path.stem, Path(body.get("checkpoint", "")).name, str(what), test.get("split", ""), *cells))
    head = ("evaluation", "checkpoint", "data", "split", "top-1", "loss", "samples")
    return Table("Evaluations", head, rows, words=(0, 1, 2, 3)) if rows else None


def written(run: Run) -> Section | None:
    """Completions."""
    return completions.section(run.directory)


def remembered(run: Run) -> Section | None:
    """What the peak of memory was predicted to be for, and what it was."""
    if run.spec.prediction is None:
        return None
    return memory.section(run.spec, run.spec.prediction, run.result)


def profile(run: Run) -> Section | None:
    """Where a step's time went, where it was traced."""
    return timeline.section(run.directory / "profile" / "trace.json")


def configured(run: Run) -> Section:
    """Plan, data, machine, versions, recipe."""
    return configuration.configuration(run.directory, run.spec)


def reproduced(run: Run) -> Section:
    """The commands."""
    return configuration.reproduce(run.directory, run.spec, run.exit)


SECTIONS: tuple[Callable[[Run], Section | None], ...] = (
    training,
    tested,
    written,
    remembered,
    profile,
    configured,
    reproduced,
)
"""In the order of their tabs."""
