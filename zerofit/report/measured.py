"""What `zerofit plan --measure` says of a stage, printed and on its page."""

from __future__ import annotations

from zerofit.plan.measured import Measured, Trial
from zerofit.report.diagnosis import columns

HEADS = ("micro-batch", "predicted", "measured", "error", "reserved", "s predicted", "s measured", "error")


def table(name: str, found: Measured) -> str:
    """Trials, a line each, and what they come to."""
    ranks = "1 rank" if found.ranks == 1 else f"{found.ranks} ranks"
    head = f"measured: {name}, {found.strategy}, {ranks}, {found.steps} steps a line; weights: {found.weights}"
    return "\n".join([head, columns([HEADS, *map(row, found.trials)]), *conclusions(found)])


def conclusions(found: Measured) -> list[str]:
    """What the trials come to, a line each."""
    short = [
        f"a micro-batch of {one.micro_batch} does not fit: measured: {one.why}" for one in found.trials if not one.fits
    ]
    return [*short, *_corrected(found)]


def row(one: Trial) -> tuple[str, ...]:
    """A trial under HEADS; empty where nothing was measured or predicted."""
    size = str(one.micro_batch) + ("" if one.accumulation == 1 else f" x {one.accumulation}")
    return (
        size,
        _gib(one.predicted_gib),
        _gib(one.peak_gib),
        _percent(one.error),
        _gib(one.reserved_gib),
        _seconds(one.predicted_s),
        _seconds(one.step_s),
        _percent(one.error_s),
    )


def _corrected(found: Measured) -> list[str]:
    lines = []
    if found.peak_gib is not None and found.fit is not None and found.predicted_gib is not None:
        by = found.correction
        kept = "" if by.slack is None else f" and {100 * by.slack:.0f} % that the allocator keeps"
        line = f"corrected, micro-batch {found.micro_batch}: {found.peak_gib:.2f} GiB"
        line += f" (predicted {found.predicted_gib:.2f}; {by.offset_gib:+.3f} GiB and {by.slope_gib:+.4f} a sample)"
        line += f", needed {found.fit.needed_gib:.2f} of {found.fit.card_gib:g} with CUDA's own{kept}"
        lines.append(line)
    if found.speed is not None and found.correction.ratio is not None:
        lines.append(
            f"corrected: {found.speed.step_s:.3f} s a step, {found.speed.samples_s:,.1f} samples/s (times "
            f"{found.correction.ratio:.2f} what was predicted)"
        )
    if found.verdict is not None:
        lines.append(f"verdict: {found.verdict}")
    return lines


def _gib(size: float | None) -> str:
    return "" if size is None else f"{size:.2f} GiB"


def _seconds(time: float | None) -> str:
    return "" if time is None else f"{time:.3f}"


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:+.1f} %"
