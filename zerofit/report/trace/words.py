"""An analysis in words: who waits, for what, and what takes the time."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import replace

from zerofit.report.trace.body import Analysis, Rank
from zerofit.report.trace.scan import listed

IDLE = 0.15
"""Share of idle time from which on a rank stands out, where it has twice as much as the rank in the middle."""
LATE = 0.15
"""Share of the span that a rank spends less in communication than the others, who wait for it there."""
SHORT = 0.25
"""Share of kernels shorter than the call that launches them from which on it is worth a word."""
LONGEST = 80


def described(found: Analysis) -> Analysis:
    """With the ranks that others wait for, and the findings."""
    found = replace(found, stragglers=stragglers(found))
    lines = [idle(found), causes(found), communication(found), waited_for(found), top(found), launches(found)]
    return replace(found, findings=[line for line in lines if line])


def stragglers(found: Analysis) -> list[int]:
    """The ranks that come late to collectives: the others' kernels wait in there, theirs are short.

    Where ranks take part in other collectives (pipelines, experts) they are not compared.
    """
    if len(found.ranks) < 2 or len(set(found.collectives.values())) > 1:
        return []
    usual = statistics.median_high(rank.communication_us for rank in found.ranks)
    return [rank.rank for rank in found.ranks if usual - rank.communication_us > LATE * rank.span_us > 0]


def idle(found: Analysis) -> str:
    """Whose device has nothing to do, and how long."""
    shares = {rank.rank: rank.idle for rank in found.ranks}
    usual = statistics.median_low(shares.values())
    out = [rank for rank, share in shares.items() if share >= IDLE and share >= 2 * usual]
    step = "the step" if len(found.steps) == 1 else "the time"
    rest = [share for rank, share in shares.items() if rank not in out]
    if out and rest:
        verb = "waits" if len(out) == 1 else "wait"
        others = "the others" if len(rest) > 1 else "the other"
        return (
            f"{ranks(out)} {verb} {both(percent(shares[rank]) for rank in out)} of {step}; "
            f"{others} under {max(1, math.ceil(100 * max(rest)))} %"
        )
    who = "the device" if len(shares) == 1 else "every rank"
    return f"{who} waits {spread(list(shares.values()))} of {step}"


def causes(found: Analysis) -> str:
    """What idle time comes from, over all ranks."""
    sums: dict[str, float] = {}
    for entry in found.idle:
        sums[entry["cause"]] = sums.get(entry["cause"], 0.0) + entry["us"]
    whole, span = sum(sums.values()), sum(rank.span_us for rank in found.ranks)
    if not whole or whole < 0.02 * span:
        return ""
    said = {
        "host_wait": "the CPU launches kernels too late (host wait)",
        "kernel_wait": "gaps between launched kernels (kernel wait)",
        "other": "kernels that were launched in time waited for others, on another stream or rank",
    }
    cause = max(sums, key=lambda name: sums[name])
    return f"{percent(sums[cause] / whole)} of the idle time: {said[cause]}"


def communication(found: Analysis) -> str:
    """How much there is, and how much of it hides behind computation."""
    if not any(rank.communication_us for rank in found.ranks):
        return "nothing communicates" if len(found.ranks) > 1 else ""
    shares = [rank.share(rank.communication_us) for rank in found.ranks]
    exposed = [rank.share(rank.exposed_communication_us or 0.0) for rank in found.ranks]
    overlaps = [rank.overlap for rank in found.ranks if rank.overlap is not None]
    if max(overlaps) < 0.005:
        return f"communication takes {spread(shares)} of the time, none of it behind computation"
    hidden = f"{spread(overlaps)} of it lies behind computation, {spread(exposed)} of the time is exposed"
    return f"communication takes {spread(shares)} of the time: {hidden}"


def waited_for(found: Analysis) -> str:
    """The stragglers."""
    if not found.stragglers:
        return ""
    late, usual = _apart(found.ranks, found.stragglers)
    here = spread([rank.share(rank.communication_us) for rank in late])
    there = spread([rank.share(rank.communication_us) for rank in usual])
    verb, they = ("comes", "it spends") if len(late) == 1 else ("come", "they spend")
    return f"{ranks(found.stragglers)} {verb} late to collectives: {they} {here} of the time there, the rest {there}"


def _apart(every: Sequence[Rank], chosen: Sequence[int]) -> tuple[list[Rank], list[Rank]]:
    return [rank for rank in every if rank.rank in chosen], [rank for rank in every if rank.rank not in chosen]


def top(found: Analysis) -> str:
    """What takes most time."""
    what = {"cuda": "kernel", "cpu": "operator"}[found.device]
    first = next((kernel for kernel in found.kernels if kernel.kind == "COMPUTATION"), None)
    if first is None:
        return ""
    share = percent(first.us / found.kernel_us) if found.kernel_us else "0 %"
    return f"the {what} that computes longest: {short(first.name)}, {share} of the time of all, {first.count:,} calls"


def launches(found: Analysis) -> str:
    """Whether kernels are too small to be worth their launch."""
    count = sum(entry["count"] for entry in found.launch)
    small = sum(entry["short_kernels"] for entry in found.launch)
    if not count or small < SHORT * count:
        return ""
    return f"{percent(small / count)} of the kernels run shorter than their launch takes: larger micro-batches, or fuse"


def short(name: str) -> str:
    """A kernel's name for a terminal: without parameters, without its end where it is long, and nothing but text."""
    name = "".join(letter if letter.isprintable() else "?" for letter in name.removeprefix("void "))
    if name.endswith(")"):
        depth = 0
        for at in range(len(name) - 1, -1, -1):
            depth += (name[at] == ")") - (name[at] == "(")
            if depth == 0:
                name = name[:at] or name
                break
    return name if len(name) <= LONGEST else name[: LONGEST - 3] + "..."


def percent(share: float) -> str:
    """A share in whole per cent, with a digit more where it is small."""
    value = 100 * share
    return f"{value:.0f} %" if value >= 10 or value < 0.05 else f"{value:.1f} %"


def spread(shares: Sequence[float]) -> str:
    """`37 %`, or `5 to 9 %`."""
    low, high = percent(min(shares)), percent(max(shares))
    return low if low == high else f"{low.removesuffix(' %')} to {high}"


def ranks(numbers: Sequence[int]) -> str:
    """`rank 3`, `ranks 0 and 6`."""
    words = listed(numbers)
    head, comma, last = words.rpartition(", ")
    return f"{'rank' if len(numbers) == 1 else 'ranks'} {head + ' and ' + last if comma else words}"


def both(words: Iterable[str]) -> str:
    """`a, b and c`."""
    *head, last = words
    return f"{', '.join(head)} and {last}" if head else last
