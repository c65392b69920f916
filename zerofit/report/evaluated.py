"""What came of an evaluation of a language model, in the terminal. Reads its directory alone."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

from zerofit.report.table import aligned


def table(directory: Path, page: Path | None, after: str) -> str:
    """Its figures, where its page is, and the command to run next."""
    result = json.loads((directory / "evaluation.json").read_text(encoding="utf-8"))
    figures = result["figures"]
    shares = [(name, _share(figures[name])) for name in figures if name.startswith(("pass@", "maj@"))]
    baseline = result["majority_baseline"]
    rows = [
        ("model", result["model"]),
        ("problems", f"{figures['problems']:,} of {result['data']}; {_drawn(result)}"),
        *shares,
        ("majority answer", f"{100 * baseline:5.1f} %  (what always giving the commonest right answer gets)"),
        *([] if result["compared_with"] is None else _compared(result["compared_with"])),
        ("answered", f"{100 * figures['answered']:.1f} % of completions; {_cut(result)}"),
        ("tokens", f"{figures['tokens']['mean']:,.0f} on average, {figures['tokens']['max']:,} at most"),
        ("speed", f"{result['tokens_s']:,.0f} tokens/s"),
        ("wall time", str(timedelta(seconds=round(result["wall_s"])))),
        ("result", os.path.relpath(directory)),
        *([] if page is None else [("page", os.path.relpath(page))]),
        ("next", after),
    ]
    return aligned(rows)


def _share(estimate: Mapping[str, float]) -> str:
    value, low, high = (100 * estimate[name] for name in ("value", "low", "high"))
    return f"{value:5.1f} %  [{low:.1f}, {high:.1f}]"


def _drawn(result: Mapping[str, Any]) -> str:
    sampling, samples = result["sampling"], result["samples"]
    if sampling["temperature"] == 0:
        return "one completion each, the likeliest"
    how = f"temperature {sampling['temperature']:g}"
    how += f", top-p {sampling['top_p']:g}" if sampling["top_p"] < 1 else ""
    how += f", top-k {sampling['top_k']}" if sampling["top_k"] else ""
    return f"{samples} completion{'s' if samples > 1 else ''} each at {how}"


def _cut(result: Mapping[str, Any]) -> str:
    share, most = 100 * result["figures"]["truncated"], result["sampling"]["max_tokens"]
    advice = " (give more with --max-tokens)" if share >= 5 else ""
    return f"{share:.1f} % cut off at {most:,} tokens{advice}"


def _compared(other: Mapping[str, Any]) -> list[tuple[str, str]]:
    value, low, high = (100 * other["difference"][name] for name in ("value", "low", "high"))
    solved = f"{other['first_only']} problems solved here alone, {other['second_only']} there alone"
    return [
        (
            "compared with",
            f"{os.path.relpath(other['evaluation'])} ({other['model']}): {_share(other['pass@1']).strip()}",
        ),
        ("difference", f"{value:+.1f} points of pass@1  [{low:+.1f}, {high:+.1f}]"),
        ("McNemar", f"p = {other['p_value']:.3g} on the first completion of each: {solved}"),
    ]
