"""What the figures of a comparison come to: against its baseline, against fewer ranks, and in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from zerofit.report.rows import Row

HEAD_ROOM = 0.2
"""Share of a card that is to stay free."""
EVEN = 0.01
"""Relative difference below which two figures are called the same."""


def related(rows: Sequence[Row]) -> list[Row]:
    """The rows with what each is beside the others: losses against the first that is ok, speed against fewer ranks."""
    good = [row for row in rows if row.status == "ok"]
    baseline = good[0] if good else None
    return [
        replace(
            row,
            scaling_efficiency=efficiency(row, good),
            loss_deviation=None if baseline in (None, row) else deviation(row.loss, baseline.loss),
        )
        for row in rows
    ]


def efficiency(row: Row, rows: Sequence[Row]) -> float | None:
    """samples/s of `row` over those of its strategy on the fewest ranks, per rank; null where there are no fewer."""
    same = [one for one in rows if one.name == row.name and one.samples_s]
    smallest = min(same, key=lambda one: one.ranks, default=row)
    if not row.samples_s or not smallest.samples_s or all(one.ranks == row.ranks for one in same):
        return None
    return row.samples_s / (smallest.samples_s * row.ranks / smallest.ranks)


def deviation(losses: Sequence[float], baseline: Sequence[float]) -> float | None:
    """The largest relative difference, over the steps that both have."""
    pairs = list(zip(losses, baseline, strict=False))
    return max((abs(one - other) / max(abs(other), 1e-12) for one, other in pairs), default=None)


def verdict(rows: Sequence[Row], limit_gib: float | None) -> list[str]:
    """A line or two for each number of ranks, then what did not run. `limit_gib`: the card's memory; null on a CPU."""
    worlds = sorted({row.ranks for row in rows})
    lines = []
    for ranks in worlds:
        here = [row for row in rows if row.ranks == ranks]
        before = f"on {ranks} {'rank' if ranks == 1 else 'ranks'}: " if len(worlds) > 1 else ""
        lines += [before + line for line in _of_world(here, limit_gib)]
    return lines + _losses(rows) + [f"{row.label}: {row.status}: {row.why}" for row in rows if row.status != "ok"]


def _of_world(rows: Sequence[Row], limit: float | None) -> list[str]:
    measured = [row for row in rows if row.status == "ok" and row.samples_s and row.peak_allocated_gib is not None]
    if not measured:
        return ["none of the strategies ran"] if not any(row.status == "ok" for row in rows) else []
    fastest = max(measured, key=_speed)
    roomy = [row for row in measured if limit is None or _peak(row) <= (1 - HEAD_ROOM) * limit]
    if not roomy:
        assert limit is not None
        leanest = min(measured, key=_peak)
        free = f"{leanest.name} leaves most, {max(0.0, 1 - _peak(leanest) / limit):.0%}"
        return [f"{fastest.name} is the fastest; none leaves {HEAD_ROOM:.0%} head-room, {free}".replace("%", " %")]
    best = max(roomy, key=_speed)
    said = f"{best.name} is the fastest"
    if len(measured) == 1:
        said = f"{best.name} alone ran"
    if limit is not None:
        said += f" that leaves {HEAD_ROOM:.0%} head-room" if len(measured) > 1 else ""
    lines = [said]
    leanest = min(measured, key=_peak)
    if leanest is not best and _peak(leanest) < (1 - EVEN) * _peak(best):
        saved = amount(_peak(best) - _peak(leanest))
        slower = 1 - _speed(leanest) / _speed(best)
        costs = f"costs {slower:.0%} here" if slower >= EVEN else "costs nothing here"
        lines[0] += f"; {leanest.name} {costs} and saves {saved}"
    elif len(measured) > 1:
        lines[0] += "; none saves memory beside it"
    if fastest is not best:
        assert limit is not None
        gained, left = _speed(fastest) / _speed(best) - 1, max(0.0, 1 - _peak(fastest) / limit)
        lines.append(f"{fastest.name} is {gained:.0%} faster and leaves {left:.0%} head-room")
    return [line.replace("%", " %") for line in lines]


def _losses(rows: Sequence[Row]) -> list[str]:
    """How far losses lie apart, once for all."""
    found = [(row.loss_deviation, row.label) for row in rows if row.loss_deviation is not None]
    if not found:
        return []
    worst, label = max(found)
    first = next(row.label for row in rows if row.status == "ok")
    if worst == 0:
        return [f"losses are those of {first}, in every digit"]
    return [f"losses differ from those of {first} by {worst:.0e} at most ({label})"]


def amount(gib: float) -> str:
    """Memory in GiB, small amounts in MiB."""
    return f"{gib:.1f} GiB" if gib >= 0.95 else f"{gib * 1024:.0f} MiB"


def _speed(row: Row) -> float:
    assert row.samples_s is not None
    return row.samples_s


def _peak(row: Row) -> float:
    assert row.peak_allocated_gib is not None
    return row.peak_allocated_gib
