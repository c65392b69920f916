"""What was done, on the terminal."""

from __future__ import annotations

import os
from typing import Any

from zerofit.prepare.options import Options

FILES = 12
"""That are listed; of more, the number."""
BAR = 30


def summary(options: Options, record: dict[str, Any], rate: float) -> str:
    """From the content of prepare.json."""
    rows, usable = record["rows"], record["usable"]
    text = [f"read {_rows(rows['read'])} at {rate:,.0f} rows/s", *_forms(record["files"])]
    if rows["dropped"]:
        text.append(f"dropped {_rows(rows['dropped'])}")
        text += [line for drop in record["drops"] for line in _drop(drop)]
    text += _notes(record)
    text.append(
        f"kept {_rows(rows['kept'])}: {usable['assistant']:,} with an assistant turn (sft), "
        f"{usable['answer']:,} with a prompt and an answer (grpo)"
    )
    text += _lengths(record["lengths"])
    shown = os.path.relpath(options.output)
    shown = str(options.output) if shown.startswith("..") else shown
    size = sum(shard["size"] for shard in record["shards"]) / 2**20
    text.append(
        f"wrote {shown}: {_count(len(record['shards']), 'shard')}, {size:,.1f} MiB; figures in {shown}/prepare.json"
    )
    return "\n".join(text)


def _forms(files: list[dict[str, Any]]) -> list[str]:
    lines = []
    for file in files[:FILES]:
        forms = ", ".join(f"{_rows(count)} of {form}" for form, count in file["forms"].items())
        lines.append(f"  {file['name']}: {forms or 'no rows'}")
    if len(files) > FILES:
        lines.append(f"  and {len(files) - FILES} more files")
    return lines


def _drop(drop: dict[str, Any]) -> list[str]:
    first, *more = drop["examples"]
    then = f"; then {', '.join(one['source'] for one in more)}" if more else ""
    others = drop["rows"] - len(drop["examples"])
    then += f" and {others:,} more" if others else ""
    return [f"  {drop['rows']:,} {drop['words']}; the first: {first['source']}: {_cut(first['detail'])}{then}"]


def _notes(record: dict[str, Any]) -> list[str]:
    """What was counted, and kept."""
    lines, near, shared = [], record["duplicates"], record["overlap"]
    if near["near_rule"] == "keep" and near["near"]:
        lines.append(f"kept {near['near']:,} that are nearly the same as an earlier row (--near-duplicates keep)")
    if shared["kept"]:
        count = sum(kind["rows"] for kind in shared["kinds"].values())
        lines.append(f"kept {count:,} that share text with the evaluation data (--keep-overlap)")
    return lines


def _lengths(lengths: dict[str, Any]) -> list[str]:
    at, context = lengths["percentiles"], lengths["context"]
    if not at:
        return []
    text = f"length in {lengths['unit']}: half up to {at['50']:,}, 95 % up to {at['95']:,}, the longest {at['100']:,}"
    if context is not None:
        text += f"; {lengths['above_context']:,} above the context of {context:,}"
    most = max(one["rows"] for one in lengths["bins"])
    width = len(f"{lengths['bins'][-1]['to']:,}")
    lines = [f"{text} ({lengths['how']})"]
    for one in lengths["bins"]:
        bar = "#" * -(-BAR * one["rows"] // most)
        lines.append(f"  below {one['to']:{width},}  {bar:{BAR}} {one['rows']:,}".rstrip())
    return lines


def _rows(count: int) -> str:
    return _count(count, "row")


def _count(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _cut(text: str) -> str:
    return text if len(text) <= 160 else text[:157] + "..."
