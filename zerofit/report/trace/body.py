"""What an analysis finds, of GPUs or CPUs alike, and its form in trace.json."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from zerofit.report.trace import spans

FORMAT = 1
TOP = 20
"""Kernels that trace.json lists."""
MOST_SPANS = 600
"""Spans of one rank in the strip; more could not be seen."""
LONGEST_NAME = 200


@dataclass(frozen=True)
class Rank:
    """How one rank's time divides, in microseconds."""

    rank: int
    span_us: float
    """From the first kernel's start to the last one's end; of a CPU: of the first and the last step."""
    compute_us: float
    """In which kernels compute (the main thread is in an operator)."""
    communication_us: float
    """In which kernels communicate (a collective is under way)."""
    memory_us: float
    """In which kernels copy or set memory."""
    exposed_communication_us: float | None
    """The part of communication under which nothing computes."""
    non_compute_us: float
    """In which something runs, and nothing computes."""
    idle_us: float
    """In which nothing runs: compute + non_compute + idle = span."""
    overlap: float | None
    """Share of communication that lies under computation; null where there is none."""
    device: Literal["cuda", "cpu"]

    @property
    def idle(self) -> float:
        """Share of the span."""
        return self.share(self.idle_us)

    def share(self, us: float) -> float:
        """A time as a share of the span."""
        return us / self.span_us if self.span_us else 0.0


@dataclass(frozen=True)
class Kernel:
    """All calls of one kernel (of a CPU: operator), on all ranks."""

    name: str
    kind: str
    us: float
    count: int


@dataclass(frozen=True)
class Analysis:
    """What was found."""

    device: Literal["cuda", "cpu"]
    steps: list[int]
    """Those that were analysed."""
    left_out: list[int]
    """The last one, where it may be cut off."""
    ranks: list[Rank]
    kinds: list[dict[str, Any]]
    kernels: list[Kernel]
    """All of them, those with most time first."""
    idle: list[dict[str, Any]]
    launch: list[dict[str, Any]]
    collectives: dict[int, int]
    """By rank: how many."""
    strip: list[dict[str, Any]]
    problems: list[str] = field(default_factory=list)
    stragglers: list[int] = field(default_factory=list)
    findings: list[str] = field(default_factory=list)
    world_size: int | None = None

    @property
    def kernel_us(self) -> float:
        """Time of all kernels."""
        return sum(kernel.us for kernel in self.kernels)

    @property
    def parts(self) -> int:
        """Steps of one rank that figures of all ranks are of."""
        return max(1, len(self.steps)) * len(self.ranks)

    def body(self, source: str) -> dict[str, Any]:
        """trace.json."""
        whole = self.kernel_us
        return {
            "format": FORMAT,
            "source": source,
            "world_size": self.world_size,
            "steps": self.steps,
            "problems": self.problems,
            "ranks": [asdict(rank) for rank in self.ranks],
            "kinds": self.kinds,
            "kernels": [
                {**asdict(kernel), "name": kernel.name[:LONGEST_NAME], "share": kernel.us / whole if whole else 0.0}
                for kernel in self.kernels[:TOP]
            ],
            "idle": self.idle,
            "stragglers": self.stragglers,
            "launch": self.launch,
            "strip": self.strip,
            "findings": self.findings,
        }


def make_strip(kinds: Mapping[int, Mapping[str, spans.Spans]]) -> list[dict[str, Any]]:
    """One step of every rank as spans [start, length, kind], from the first one's start on."""
    starts = [float(one[0][0]) for found in kinds.values() for one in found.values() if len(one[0])]
    zero = min(starts, default=0.0)
    return [{"rank": rank, "spans": _few(found, zero)} for rank, found in kinds.items()]


def _few(found: Mapping[str, spans.Spans], zero: float) -> list[list[Any]]:
    gap = 0.0
    while sum(len(one[0]) for one in found.values()) > MOST_SPANS:
        gap = 2 * gap or 1.0
        found = {kind: spans.coarser(one, gap) for kind, one in found.items()}
    made = [
        [round(float(start) - zero, 3), round(float(end - start), 3), kind]
        for kind, one in found.items()
        for start, end in zip(*one, strict=True)
    ]
    return sorted(made, key=lambda span: span[0])
