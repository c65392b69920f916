"""What came of an evaluation on CAD models, in the terminal. Reads its directory alone."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

from zerofit.report.table import aligned

SHARES = {
    "parsed": "parsed",
    "valid": "valid",
    "command_accuracy": "commands",
    "parameter_accuracy": "parameters",
    "iou": "IoU",
}
"""Figures that are fractions, by what a column is called."""
DISTANCE = "chamfer x 1,000"


def table(directory: Path, page: Path | None, run: str) -> str:
    """Its figures, a line for what was told, where its page is, and the command to run next, of `run`."""
    result = json.loads((directory / "evaluation.json").read_text(encoding="utf-8"))
    figures = result["figures"]
    first = next(iter(figures.values()))
    rows = [
        ("model", result["model"]),
        ("CAD models", f"{first['shapes']:,} of {result['data']}; {_drawn(result)}"),
        *_figures(figures),
        ("cut off", _cut(result)),
        ("speed", f"{result['tokens_s']:,.0f} tokens/s, what is made of them included"),
        ("wall time", str(timedelta(seconds=round(result["wall_s"])))),
        ("result", os.path.relpath(directory)),
        *([] if page is None else [("page", os.path.relpath(page))]),
        ("next", shlex.join(["zerofit", "generate", run, *_told(result), "--out", "part.step"])),
    ]
    return aligned(rows)


def _told(result: Mapping[str, Any]) -> list[str]:
    """One of the captions, where they are told."""
    return ["--text", result["caption"]] if any("text" in mix for mix in result["mixes"]) else ["--points", "part.npy"]


def _figures(figures: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, str]]:
    """A line of names, and one for each mix: means, and the median distance, with 95 % intervals."""
    names = [*SHARES.values(), DISTANCE]
    cells = {mix: [*(_share(one[name]) for name in SHARES), _distance(one["chamfer"])] for mix, one in figures.items()}
    widths = [max(map(len, column)) for column in zip(names, *cells.values(), strict=True)]
    lines = [("told", names), *cells.items()]
    return [
        (name, "  ".join(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True)).rstrip())
        for name, line in lines
    ]


def _share(estimate: Mapping[str, float] | None) -> str:
    if estimate is None:
        return "none"
    value, low, high = (100 * estimate[name] for name in ("value", "low", "high"))
    return f"{value:.1f} % [{low:.1f}, {high:.1f}]"


def _distance(estimate: Mapping[str, float] | None) -> str:
    if estimate is None:
        return "none"
    value, low, high = (1000 * estimate[name] for name in ("value", "low", "high"))
    return f"{value:.3g} [{low:.3g}, {high:.3g}]"


def _drawn(result: Mapping[str, Any]) -> str:
    sampling = result["sampling"]
    how = "the likeliest text of each" if sampling["temperature"] == 0 else f"temperature {sampling['temperature']:g}"
    return f"{how}, held to the grammar" if result["constrained"] else how


def _cut(result: Mapping[str, Any]) -> str:
    figures, most = result["figures"].values(), result["sampling"]["max_tokens"]
    share = 100 * sum(one["truncated"] * one["shapes"] for one in figures) / sum(one["shapes"] for one in figures)
    advice = " (give more with --max-tokens)" if share >= 5 else ""
    return f"{share:.1f} % of the texts, at {most:,} tokens{advice}"
