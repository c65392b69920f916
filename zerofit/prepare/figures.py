"""What is counted on the way, and prepare.json, which says all of it."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any

from zerofit.prepare import duplicates, overlap
from zerofit.prepare.lengths import Ruler, Size
from zerofit.prepare.options import Options
from zerofit.prepare.overlap import Shared
from zerofit.prepare.rows import BAD, WORDS, Example, Reason
from zerofit.prepare.writing import Shard, shard_records

EXAMPLES = 5
"""Of each reason, with their places."""
PERCENTS = (0, 5, 25, 50, 75, 90, 95, 99, 100)
BINS = 16
"""Up to the context."""


@dataclass
class File:
    """Of one source."""

    name: str
    format: str
    rows: int = 0
    kept: int = 0
    forms: Counter[str] = field(default_factory=Counter)
    dropped: Counter[Reason] = field(default_factory=Counter)


@dataclass
class Drop:
    """Of one reason."""

    rows: int = 0
    examples: list[dict[str, str]] = field(default_factory=list)

    def add(self, source: str, detail: str) -> None:
        """Count one, and keep the first few."""
        self.rows += 1
        if len(self.examples) < EXAMPLES:
            self.examples.append({"source": source, "detail": detail})


@dataclass
class Figures:
    """All counts of one preparation."""

    files: list[File] = field(default_factory=list)
    kept_forms: Counter[str] = field(default_factory=Counter)
    drops: dict[Reason, Drop] = field(default_factory=lambda: {reason: Drop() for reason in WORDS})
    near: Drop = field(default_factory=Drop)
    shared: dict[str, Drop] = field(default_factory=lambda: {"question": Drop(), "13 words": Drop()})
    shared_with: Counter[str] = field(default_factory=Counter)
    lengths: Counter[int] = field(default_factory=Counter)
    words: Counter[int] = field(default_factory=Counter)
    kept: int = 0
    taught: int = 0
    answered: int = 0
    both: int = 0

    @property
    def rows(self) -> int:
        """Rows read, with those that could not be."""
        return sum(file.rows for file in self.files)

    @property
    def forms(self) -> Counter[str]:
        """Rows of each form."""
        total: Counter[str] = Counter()
        for file in self.files:
            total.update(file.forms)
        return total

    def drop(self, file: File, source: str, reason: Reason, detail: str) -> None:
        """A row is left out."""
        file.dropped[reason] += 1
        self.drops[reason].add(source, detail)

    def overlaps(self, source: str, found: Shared) -> str:
        """A row shares text with evaluation data. Returns how, in words."""
        detail = f"asks what {found.source} asks"
        if found.kind == "13 words":
            detail = f"shares with {found.source}: {found.text}"
        self.shared[found.kind].add(source, detail)
        self.shared_with[found.source.rpartition(":")[0]] += 1
        return detail

    def keep(self, file: File, form: str, example: Example) -> None:
        """A row is written."""
        file.kept += 1
        self.kept_forms[form] += 1
        self.kept += 1
        self.taught += example.taught
        answered = example.answer is not None and bool(example.prompt)
        self.answered += answered
        self.both += example.taught and answered

    def measure(self, size: Size) -> None:
        """A row's size, before the context decides about it."""
        self.lengths[size.length] += 1
        self.words[size.words] += 1

    def above(self, context: int) -> int:
        """Rows longer than that."""
        return sum(rows for length, rows in self.lengths.items() if length > context)

    def record(self, options: Options, ruler: Ruler, asked: dict[str, int], shards: list[Shard]) -> dict[str, Any]:
        """prepare.json. `asked`: questions of each file of evaluation data."""
        dropped = {reason: drop for reason, drop in self.drops.items() if drop.rows}
        return {
            "schema": 1,
            "options": options.record(),
            "rows": {
                "read": self.rows,
                "kept": self.kept,
                "dropped": sum(drop.rows for drop in dropped.values()),
                "bad": sum(drop.rows for reason, drop in dropped.items() if reason in BAD),
            },
            "usable": {"assistant": self.taught, "answer": self.answered, "both": self.both},
            "files": [
                {**asdict(file), "forms": dict(file.forms), "dropped": dict(file.dropped)} for file in self.files
            ],
            "forms": {form: {"rows": rows, "kept": self.kept_forms[form]} for form, rows in self.forms.items()},
            "drops": [
                {"reason": reason, "words": WORDS[reason], "rows": drop.rows, "examples": drop.examples}
                for reason, drop in dropped.items()
            ],
            "duplicates": {
                "exact": self.drops["duplicate"].rows,
                "near": self.near.rows,
                "near_examples": self.near.examples,
                "near_rule": options.near_duplicates,
                "near_threshold": duplicates.THRESHOLD,
                "near_run_words": duplicates.RUN,
            },
            "overlap": {
                "evaluation": [
                    {"name": name, "questions": count, "rows": self.shared_with[name]} for name, count in asked.items()
                ],
                "run_words": overlap.RUN,
                "kept": options.keep_overlap,
                "kinds": {kind: asdict(drop) for kind, drop in self.shared.items()},
            },
            "lengths": self._lengths(options, ruler),
            "shards": shard_records(shards),
        }

    def _lengths(self, options: Options, ruler: Ruler) -> dict[str, Any]:
        return {
            "unit": ruler.unit,
            "how": ruler.how,
            "context": options.context,
            "above_context": None if options.context is None else self.above(options.context),
            "rows": self.lengths.total(),
            "mean": _mean(self.lengths),
            "percentiles": percentiles(self.lengths),
            "bins": bins(self.lengths, options.context),
            "words": {"mean": _mean(self.words), "percentiles": percentiles(self.words)},
        }


def percentiles(counts: Counter[int]) -> dict[str, int]:
    """The smallest length that so many percent of the rows do not exceed."""
    total, found = counts.total(), {}
    if not total:
        return {}
    ordered, wanted, below = sorted(counts), list(PERCENTS), 0
    for length in ordered:
        below += counts[length]
        while wanted and below * 100 >= wanted[0] * total:
            found[str(wanted.pop(0))] = length
    return found


def bins(counts: Counter[int], context: int | None) -> list[dict[str, int | None]]:
    """Rows by length, from `from` on and below `to`: 16 bins of the context, then doubling; without one, doubling."""
    if not counts:
        return []
    longest = max(counts)
    edges = [0] if context is None else sorted({context * i // BINS for i in range(BINS)} | {context + 1})
    step = 16 if context is None else 2 * context
    while edges[-1] <= longest:
        edges.append(max(step, edges[-1] + 1))
        step *= 2
    rows = [0] * (len(edges) - 1)
    for length, count in counts.items():
        rows[next(i for i in reversed(range(len(rows))) if edges[i] <= length)] += count
    return [{"from": edges[i], "to": edges[i + 1], "rows": rows[i]} for i in range(len(rows))]


def _mean(counts: Counter[int]) -> float | None:
    total = counts.total()
    return round(sum(length * rows for length, rows in counts.items()) / total, 2) if total else None
