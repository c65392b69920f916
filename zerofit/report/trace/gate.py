"""`--fail-if 'idle>20%'`: a trace as a gate. A figure, < or >, and a share; nothing else is understood."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from zerofit.config.errors import UserError, did_you_mean
from zerofit.report.trace.body import Analysis, Rank

FAILED = 3
"""Exit code where a gate holds."""
_FORM = re.compile(r"\s*([a-z][a-z_ ]*?)\s*([<>])\s*(\d+(?:\.\d+)?)\s*%\s*", re.ASCII)

FIGURES: dict[str, Callable[[Rank], float | None]] = {
    "idle": lambda rank: rank.idle,
    "compute": lambda rank: rank.share(rank.compute_us),
    "communication": lambda rank: rank.share(rank.communication_us),
    "exposed communication": lambda rank: (
        None if rank.exposed_communication_us is None else rank.share(rank.exposed_communication_us)
    ),
    "overlap": lambda rank: rank.overlap,
}


@dataclass(frozen=True)
class Gate:
    """One condition; it holds where any rank's figure is beyond the limit."""

    figure: str
    above: bool
    limit: float
    """A share, 0 to 1."""

    def held_by(self, found: Analysis) -> dict[int, float]:
        """The ranks that are beyond the limit, with their figures. Ranks without the figure are not."""
        figures = {rank.rank: FIGURES[self.figure](rank) for rank in found.ranks}
        return {
            rank: value
            for rank, value in figures.items()
            if value is not None and (value > self.limit if self.above else value < self.limit)
        }

    def said(self, held: dict[int, float]) -> str:
        """One line for the terminal."""
        ranks = ", ".join(f"rank {rank}: {100 * value:.1f} %" for rank, value in held.items())
        return f"failed: {self.figure} {'>' if self.above else '<'} {100 * self.limit:g} %: {ranks}"


def parse(text: str) -> Gate:
    """A gate. Raises UserError for anything else than FIGURE<NUMBER% or FIGURE>NUMBER%."""
    found = _FORM.fullmatch(text)
    if found is None:
        raise UserError(
            f"--fail-if {text}: is to be a figure, < or >, and per cent: 'idle>20%'; figures: {', '.join(FIGURES)}"
        )
    figure = " ".join(found[1].replace("_", " ").split())
    if figure not in FIGURES:
        raise UserError(
            f"--fail-if {text}: there is no figure {figure}{did_you_mean(figure, FIGURES)}: {', '.join(FIGURES)}"
        )
    limit = float(found[3])
    if limit > 100:
        raise UserError(f"--fail-if {text}: no share is above 100 %")
    return Gate(figure, found[2] == ">", limit / 100)
