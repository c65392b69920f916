"""How much of a traced window a rank did nothing but communicate, from its Kineto trace (RUN/profile/rank-N.json.gz).

On a GPU: NCCL's kernels while no other kernel runs. On a CPU: gloo's threads at work while the thread that steps
computes nothing, that is runs no operator of PyTorch's.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

Interval = tuple[float, float]
"""Begin and end."""


def union(intervals: Iterable[Interval]) -> list[Interval]:
    """The same time as intervals that neither touch nor overlap, in order."""
    merged: list[Interval] = []
    for begin, end in sorted(one for one in intervals if one[0] < one[1]):
        if merged and begin <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], end))
        else:
            merged.append((begin, end))
    return merged


def length(intervals: Iterable[Interval]) -> float:
    """The time that intervals cover."""
    return sum(end - begin for begin, end in union(intervals))


def common(first: Iterable[Interval], second: Iterable[Interval]) -> list[Interval]:
    """The time that both cover."""
    ours, theirs, found = union(first), union(second), []
    i = j = 0
    while i < len(ours) and j < len(theirs):
        begin, end = max(ours[i][0], theirs[j][0]), min(ours[i][1], theirs[j][1])
        if begin < end:
            found.append((begin, end))
        if ours[i][1] < theirs[j][1]:
            i += 1
        else:
            j += 1
    return found


def exposed_share(
    window: Sequence[Interval], communication: Sequence[Interval], computation: Sequence[Interval]
) -> float | None:
    """Of the window, the part in which there is communication and no computation; null for an empty window."""
    whole = length(window)
    if whole <= 0:
        return None
    inside = common(window, communication)
    return (length(inside) - length(common(inside, computation))) / whole


def share_of_trace(path: Path) -> float | None:
    """`exposed_share` of the steps in a trace; null where it shows none."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        events = [event for event in json.load(file)["traceEvents"] if event.get("ph") == "X"]
    kernels = [event for event in events if event.get("cat") == "kernel"]
    return _on_gpu(kernels) if kernels else _on_cpu(events)


def _on_gpu(kernels: Sequence[Mapping[str, Any]]) -> float | None:
    spans = [(_is_nccl(event), _interval(event)) for event in kernels]
    window = (min(span[0] for _, span in spans), max(span[1] for _, span in spans))
    communication = [span for nccl, span in spans if nccl]
    return exposed_share([window], communication, [span for nccl, span in spans if not nccl])


def _is_nccl(event: Mapping[str, Any]) -> bool:
    return "nccl" in event["name"].lower()


def _on_cpu(events: Sequence[Mapping[str, Any]]) -> float | None:
    steps = [event for event in events if event["name"].startswith("ProfilerStep#")]
    if not steps:
        return None
    thread = steps[0]["tid"]
    window = [_interval(event) for event in steps]
    communication = [_interval(event) for event in events if event["name"].startswith("gloo:")]
    computation = [
        _interval(event) for event in events if event["tid"] == thread and event["name"].startswith("aten::")
    ]
    return exposed_share(window, communication, computation)


def _interval(event: Mapping[str, Any]) -> Interval:
    return event["ts"], event["ts"] + event["dur"]
