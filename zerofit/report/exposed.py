"""How much of a traced window a rank did nothing but communicate, from its Kineto trace (RUN/profile/rank-N.json.gz).

On a GPU: NCCL's kernels while no other kernel runs. On a CPU: gloo's threads at work while the thread that steps
computes nothing, that is runs no operator of PyTorch's. Quicker than HTA, which the extra `trace` brings, and without
it: `zerofit trace` says more.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from zerofit.report.trace import spans
from zerofit.report.trace.cpu import computes
from zerofit.report.trace.events import Event, Trace
from zerofit.report.trace.scan import STEP


def exposed_share(window: spans.Spans, communication: spans.Spans, computation: spans.Spans) -> float | None:
    """Of the window, the part in which there is communication and no computation; null for an empty window."""
    whole = spans.total(window)
    if whole <= 0:
        return None
    busy = spans.both(window, spans.joined(communication, computation))
    return (busy - spans.both(window, computation)) / whole


def share_of_trace(path: Path) -> float | None:
    """`exposed_share` of the steps in a trace; null where it shows none. Raises UserError where it cannot be read."""
    events = [event for event in Trace(path).events() if event.get("ph") == "X"]
    kernels = [event for event in events if event.get("cat") == "kernel"]
    if kernels:
        return _on_gpu(kernels)
    steps = [event for event in events if STEP.fullmatch(event["name"])]
    return _on_cpu(events, steps) if steps else None


def _on_gpu(kernels: list[Event]) -> float | None:
    ran = _spans(kernels)
    window = spans.union([ran[0][0]], [ran[1][-1] - ran[0][0]])
    nccl = ["nccl" in event["name"].lower() for event in kernels]
    communication = _spans(event for event, is_nccl in zip(kernels, nccl, strict=True) if is_nccl)
    computation = _spans(event for event, is_nccl in zip(kernels, nccl, strict=True) if not is_nccl)
    return exposed_share(window, communication, computation)


def _on_cpu(events: list[Event], steps: list[Event]) -> float | None:
    thread = steps[0]["tid"]
    communication = _spans(event for event in events if event["name"].startswith("gloo:"))
    computation = _spans(
        event for event in events if event.get("cat") == "cpu_op" and event["tid"] == thread and computes(event["name"])
    )
    return exposed_share(_spans(steps), communication, computation)


def _spans(events: Iterable[Event]) -> spans.Spans:
    times = [(event["ts"], event["dur"]) for event in events]
    return spans.union([start for start, _ in times], [length for _, length in times])
