"""What `zerofit doctor` prints."""

from __future__ import annotations

from collections.abc import Sequence

from zerofit.plan.diagnosis import Diagnosis


def text(diagnosis: Diagnosis) -> str:
    """A line for each check, and below those that are not ok what to do."""
    lines = []
    width = max(len(one.name) for one in diagnosis.checks)
    for one in diagnosis.checks:
        lines.append(f"{one.status:7}  {one.name:{width}}  {one.found}")
        if one.advice:
            lines.append(f"{'':7}  {'':{width}}  -> {one.advice}")
    counts = {status: sum(one.status == status for one in diagnosis.checks) for status in ("error", "warning")}
    said = [f"{count} {status}{'' if count == 1 else 's'}" for status, count in counts.items() if count]
    lines.append(", ".join(said) if said else "nothing is in the way of a run")
    return "\n".join(lines)


def columns(rows: Sequence[Sequence[str]]) -> str:
    """Rows of cells, the first to the left, the others to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [f"{row[0]:{widths[0]}}", *(f"{cell:>{wide}}" for cell, wide in zip(row[1:], widths[1:], strict=True))]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)
