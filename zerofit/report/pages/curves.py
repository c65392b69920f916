"""metrics.jsonl as curves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from zerofit.report.pages.charts import COLOURS, Series, lines
from zerofit.report.pages.files import Column
from zerofit.report.pages.parts import Chart

STRETCH = 25
"""A running mean is over this part of all lines: a 25th."""


@dataclass(frozen=True)
class Curve:
    """A chart of some fields of metrics.jsonl."""

    name: str
    title: str
    unit: str
    fields: dict[str, str]
    """Field: what the legend calls it."""
    scale: float = 1.0
    smooth: tuple[str, ...] = ()
    """Fields that are shown as they are, faint, and as a running mean."""
    zero: bool = False
    log: bool = False


PARTS = {
    "reward/": Curve("rewards", "Parts of the reward", "mean, before weights", {}),
    "val_reward/": Curve("val-rewards", "Parts of the reward, validation", "mean, before weights", {}),
    "val_loss/": Curve("val-loss-inputs", "Validation loss, by what is seen", "nats", {}),
    "val_token_accuracy/": Curve(
        "val-accuracy-inputs", "Next token, by what is seen", "% right, validation", {}, 100.0
    ),
}
"""Curves of all fields that begin so, whatever the rewards, or the inputs of CAD models, are called."""
CURVES = (
    Curve("loss", "Loss", "nats", {"loss": "training", "val_loss": "validation"}, smooth=("loss",)),
    Curve("accuracy", "Validation accuracy", "%", {"val_top1": "top-1", "val_top5": "top-5"}, scale=100.0),
    Curve(
        "token-accuracy",
        "Next token",
        "% right",
        {"token_accuracy": "training", "val_token_accuracy": "validation"},
        100.0,
        ("token_accuracy",),
    ),
    Curve("perplexity", "Perplexity", "", {"perplexity": "training", "val_perplexity": "validation"}),
    Curve("reward", "Reward", "mean", {"reward": "training", "val_reward": "validation"}, smooth=("reward",)),
    *PARTS.values(),
    Curve("pass", "Problems solved", "% of validation", {"val_pass@1": "pass@1"}, scale=100.0),
    Curve("reward-std", "Spread of rewards", "standard deviation", {"reward_std": "rewards"}, smooth=("reward_std",)),
    Curve("alike", "Prompts that teach nothing", "%, all rewards alike", {"reward_alike": "prompts"}, 100.0, zero=True),
    Curve("kl", "KL to the reference", "nats a token", {"kl": "KL"}, smooth=("kl",)),
    Curve("entropy", "Entropy", "nats a token", {"entropy": "entropy"}, smooth=("entropy",), zero=True),
    Curve(
        "length",
        "Length of completions",
        "tokens",
        {"completion_length": "mean", "completion_length_max": "longest", "val_completion_length": "validation, mean"},
        smooth=("completion_length",),
        zero=True,
    ),
    Curve(
        "clipped",
        "Completions cut off",
        "% at max_tokens",
        {"clipped": "training", "val_clipped": "validation"},
        100.0,
        ("clipped",),
        zero=True,
    ),
    Curve("clip-ratio", "Clipped ratios", "% of tokens", {"clip_ratio": "clipped"}, 100.0, ("clip_ratio",), zero=True),
    Curve(
        "throughput", "Throughput", "samples/s, all ranks", {"samples_s": "samples/s"}, smooth=("samples_s",), zero=True
    ),
    Curve("tokens", "Tokens", "tokens/s, all ranks", {"tokens_s": "tokens/s"}, smooth=("tokens_s",), zero=True),
    Curve(
        "memory",
        "Memory",
        "GiB, rank 0",
        {
            "peak_alloc_gib": "GPU, allocated at most",
            "peak_reserved_gib": "GPU, reserved at most",
            "host_rss_gib": "host, resident at most",
            "host_used_gib": "host, all programs now",
        },
        zero=True,
    ),
    Curve("generate", "Making completions", "s a logged step", {"generate_s": "rollouts"}, zero=True),
    Curve("lr", "Learning rate", "", {"lr": "learning rate"}, zero=True),
    Curve("grad-norm", "Gradient norm", "before clipping", {"grad_norm": "norm"}, smooth=("grad_norm",), log=True),
    Curve(
        "mfu", "Model FLOPs utilisation", "% of the datasheet's dense rate", {"mfu": "MFU"}, 100.0, ("mfu",), zero=True
    ),
    Curve(
        "wait",
        "Waiting for data",
        "ms a logged step, rank 0",
        {"data_wait_s": "wait"},
        1000.0,
        ("data_wait_s",),
        zero=True,
    ),
    Curve(
        "optimizer",
        "Optimizer's step",
        "ms a logged step, rank 0",
        {"optimizer_s": "optimizer"},
        1000.0,
        ("optimizer_s",),
        zero=True,
    ),
    Curve(
        "gpu",
        "GPU utilisation",
        "%, rank 0",
        {"gpu_utilisation": "utilisation"},
        100.0,
        ("gpu_utilisation",),
        zero=True,
    ),
    Curve(
        "temperature",
        "GPU temperature",
        "°C, rank 0",
        {"gpu_temperature_c": "temperature"},
        smooth=("gpu_temperature_c",),
    ),
    Curve("power", "GPU power", "W, rank 0", {"gpu_power_w": "power"}, smooth=("gpu_power_w",), zero=True),
)
"""In the order of the page."""
AXES = ("step", "epoch")
PASSED = ("val_duration_s", "duration_s")
"""Fields of metrics.jsonl that are no curve."""


def curves(columns: Mapping[str, Column]) -> list[Chart]:
    """Charts of all figures of metrics.jsonl that there are; a field that no Curve names has one of its own."""
    named = [*CURVES]
    for prefix, curve in PARTS.items():
        found = sorted(field for field in columns if field.startswith(prefix))[:COLOURS]
        parts = replace(curve, fields={field: field.removeprefix(prefix) for field in found}, smooth=tuple(found))
        named[named.index(curve)] = parts
    if "reward" in columns:  # a policy's loss is no likelihood
        named = [replace(curve, unit="") if curve.name == "loss" else curve for curve in named]
    known = {field for curve in named for field in curve.fields}
    others = sorted(columns.keys() - known - {*AXES, *PASSED})
    every = [*named, *(Curve(f"field-{number}", field, "", {field: field}) for number, field in enumerate(others))]
    charts = (_chart(curve, columns) for curve in every)
    return [chart for chart in charts if chart is not None]


def _chart(curve: Curve, columns: Mapping[str, Column]) -> Chart | None:
    series: list[Series] = []
    fields = [(field, label) for field, label in curve.fields.items() if field in columns]
    for colour, (field, label) in enumerate(fields):
        steps, values = columns[field].steps, curve.scale * columns[field].values
        if field in curve.smooth and len(steps) >= 2 * STRETCH:
            series.append(Series(f"{label}, each line", steps, values, "faint", colour))
            values = running_mean(values, len(values) // STRETCH)
        series.append(Series(label, steps, values, "marked" if field.startswith("val_") else "line", colour))
    if not series:
        return None
    epochs = columns.get("epoch")
    return lines(curve.name, curve.title, curve.unit, series, zero=curve.zero, log=curve.log, epochs=epochs)


def running_mean(values: NDArray[np.float64], width: int) -> NDArray[np.float64]:
    """Mean of up to `width` values around each, fewer at the ends."""
    sums = np.concatenate([[0.0], np.cumsum(values)])
    places = np.arange(len(values))
    start = np.maximum(0, places - width // 2)
    end = np.minimum(len(values), places + width - width // 2)
    return (sums[end] - sums[start]) / (end - start)
