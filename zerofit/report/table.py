"""What came of a run, in the terminal. Reads run directories alone."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from zerofit.config.schema import LANGUAGE
from zerofit.plan.files import RUN_FILE, read_spec
from zerofit.plan.spec import RunSpec


def headline(spec: RunSpec) -> str:
    """One line that says what starts."""
    strategy, batches = spec.strategy, spec.batches
    offload = "".join(
        f", {what} on {where}" for what, where in strategy.offload if what in ("optimizer", "params") and where
    )
    return (
        f"{os.path.relpath(spec.run_dir)}: {strategy.name}{offload}, {batches.ranks} ranks on {spec.hardware.name}"
        f"{_cap(spec)}, {spec.precision}, {batches.total_steps} steps of {batches.global_batch} {samples(spec)}"
    )


def _cap(spec: RunSpec) -> str:
    """What `hardware.memory_cap` makes of the cards."""
    cap = spec.recipe.hardware.memory_cap
    if cap is None:
        return ""
    if spec.hardware.device == "cpu":
        return " (hardware.memory_cap is for GPUs: it does nothing here)"
    return f" of which {cap:g} GiB are used"


def samples(spec: RunSpec) -> str:
    """What a batch counts; of the task grpo also what a generation is."""
    if spec.grpo is None:
        return "samples"
    sizes = spec.grpo
    times = "" if sizes.generations_per_step == 1 else f", {sizes.generations_per_step} times"
    return f"completions ({sizes.prompts} prompts x {sizes.num_generations}{times})"


def training(run_dir: Path, page: Path | None = None) -> str:
    """The table of a finished run and where its page is; figures that its task does not report are left out."""
    shown = os.path.relpath(run_dir)
    result = json.loads((run_dir / "result.json").read_text(encoding="utf-8"))
    saved = any(run_dir.glob("checkpoints/step-*"))
    after = [("next", f"zerofit eval {shown}")] if saved else []
    if any(run_dir.glob("profile/rank-*.json.gz")):
        after.append(("" if saved else "next", f"zerofit trace {shown}"))
    rows = [*_figures(result), *_best(run_dir, result), ("run directory", shown), *_page(page), *after]
    return aligned(rows)


def job(runs: Sequence[Path], page: Path | None = None) -> str:
    """The table of a job whose stages' run directories are these: a line each, and where its page is."""
    rows = []
    for run in runs:
        path = run / "result.json"
        result = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        figures = "; ".join(f"{name} {value}" for name, value in _figures(result))
        rows.append((os.path.relpath(run), figures or "trained, and cut off in its test"))
    return aligned([*rows, *_page(page), ("next", f"zerofit eval {os.path.relpath(runs[-1])}")])


def gap(cached: Path, online: Path) -> str:
    """What two probes of the same backbone and images came to, on cached features and online, and the difference."""
    results = {run: json.loads((run / "result.json").read_text(encoding="utf-8")) for run in (cached, online)}
    top1 = {run: 100 * result["test"]["top1"] for run, result in results.items()}
    took = {run: timedelta(seconds=round(result["wall_s"])) for run, result in results.items()}
    rows = [(name, f"{top1[run]:.2f} % top-1 in {took[run]}") for name, run in (("cached", cached), ("online", online))]
    points = top1[cached] - top1[online]
    word = "above" if points > 0 else "below"
    said = f"cached is {abs(points):.2f} points {word} online" if points else "none"
    return aligned([*rows, ("difference", said), ("run directories", os.path.relpath(cached.parent))])


def evaluation(path: Path) -> str:
    """The table of a finished evaluation."""
    result = json.loads(path.read_text(encoding="utf-8"))
    rows = [("checkpoint", os.path.relpath(result["checkpoint"])), *_figures(result), ("result", os.path.relpath(path))]
    return aligned(rows)


def _best(run_dir: Path, result: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Of a language task, the validation that was best, and at which step: checkpoints are kept by it."""
    best = result.get("best") or {}
    if best.get("value") is None or best.get("step") is None or not (run_dir / RUN_FILE).is_file():
        return []
    recipe = read_spec(run_dir).recipe
    if recipe.task not in LANGUAGE:
        return []
    name = recipe.best_metric.replace("_", " ")
    return [("best validation", f"{name} {best['value']:.4f} at step {best['step']}")]


def _page(page: Path | None) -> list[tuple[str, str]]:
    return [] if page is None else [("page", os.path.relpath(page))]


def _figures(result: Mapping[str, Any]) -> list[tuple[str, str]]:
    rows = []
    test = result.get("test", {})
    shares = [f"{100 * test[key]:.2f} % {name}" for key, name in (("top1", "top-1"), ("top5", "top-5")) if key in test]
    if shares:
        rows.append(("test accuracy", ", ".join(shares)))
    if "token_accuracy" in test:
        rows.append(("test accuracy", f"{100 * test['token_accuracy']:.2f} % of tokens"))
    if "pass@1" in test:
        rows.append(("test pass@1", f"{100 * test['pass@1']:.2f} %"))
    if "reward" in test:
        rows.append(("test reward", f"{test['reward']:.4f}"))
    if "loss" in test and "reward" not in test:
        perplexity = f", perplexity {test['perplexity']:.4g}" if "perplexity" in test else ""
        rows.append(("test loss", f"{test['loss']:.4f}{perplexity}"))
    if "knn_top1" in result:
        rows.append(("nearest neighbours", f"{100 * result['knn_top1']:.2f} % top-1 (k = 20, cosine)"))
    if "heads" in result:
        chosen = result["chosen"]
        norm = "with" if chosen["batch_norm"] else "without"
        held = "" if chosen["top1"] is None else f", {100 * chosen['top1']:.2f} % on images held out of training"
        which = f"the one of {len(result['heads'])} with lr x {chosen['lr_scale']:g}, {norm} BatchNorm"
        rows.append(("head", which + held))
    if "features" in result:
        made = result["features"]
        how = "found" if made["reused"] else f"computed, {made['images_s']:,.0f} images/s"
        rows.append(("features", f"{how}; {made['directory']}"))
    if result.get("peak_alloc_gib") is not None:
        found = result.get("prediction")
        said = "" if found is None else f"; {found['peak_gib']:.2f} were predicted ({100 * found['error']:+.1f} %)"
        rows.append(("peak memory", f"{result['peak_alloc_gib']:.2f} GiB per rank{said}"))
    if result.get("samples_s") is not None:
        rows.append(("speed", f"{result['samples_s']:.1f} samples/s"))
    if "wall_s" in result:
        rows.append(("wall time", str(timedelta(seconds=round(result["wall_s"])))))
    return rows


def aligned(rows: list[tuple[str, str]]) -> str:
    """Lines of a name and what it is, one below the other."""
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:{width}}  {value}" for name, value in rows)
