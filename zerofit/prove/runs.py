"""One run of a comparison, from its recipe to its row: whatever comes of it is a row."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from pathlib import Path

from zerofit.config.errors import UserError
from zerofit.config.schema import Recipe
from zerofit.config.strategy import AUTO
from zerofit.launch import rundir
from zerofit.launch.dispatch import conduct
from zerofit.launch.failure import INTERRUPTED, Failure
from zerofit.launch.start import begin
from zerofit.plan.spec import Hardware, ImageFacts, TextFacts
from zerofit.prove.cases import Case, recipe_of
from zerofit.prove.micro_batch import largest
from zerofit.report.rows import Row, row_of

PROBING = 3
"""Steps of a run that finds out whether a micro-batch fits: the second has all of the optimizer's state."""
KILLED = "killed by SIGKILL"


class Interrupted(Exception):
    """A signal has ended a run, and so the comparison.

    `code` is the exit code that it stands for; `row` the run's, where that was done when the signal came.
    """

    def __init__(self, code: int, row: Row | None = None) -> None:
        super().__init__(code, row)
        self.code, self.row = code, row


class _Unclear(Exception):
    """A run ended in a way that says nothing of memory."""


@dataclass(frozen=True)
class Work:
    """What every run of a comparison does."""

    base: Recipe
    """With a micro-batch."""
    facts: ImageFacts | TextFacts
    hardware: Hardware
    directory: Path
    """The comparison's, absolute."""
    steps: int
    traced: bool

    @property
    def micro_batch(self) -> int:
        """The one of all rows."""
        micro = self.base.train.micro_batch
        assert micro != AUTO, "`common` has settled it"
        return micro

    def row(self, case: Case) -> Row:
        """Run it. Raises Interrupted."""
        return self._run(case, self.directory / case.directory, self.steps, self.traced, None)

    def with_largest(self, case: Case, row: Row) -> Row:
        """Its row with the largest micro-batch, which takes a few short runs more. Raises Interrupted."""
        if row.status not in ("ok", "out of memory"):
            return row
        start = self.micro_batch
        known = {start: row.status == "ok"}

        def fits(size: int) -> bool:
            if size not in known:
                print(f"{case.label}: does a micro-batch of {size} fit?", flush=True)
                path = self.directory / "max-micro-batch" / f"{case.directory}-{size}"
                status = self._run(case, path, PROBING, False, size).status
                if status not in ("ok", "out of memory"):
                    raise _Unclear
                known[size] = status == "ok"
            return known[size]

        try:
            size = largest(fits, start, max(1, self.facts.train // case.ranks))
        except _Unclear:
            return row
        return replace(row, max_micro_batch=size)

    def _run(self, case: Case, path: Path, steps: int, traced: bool, micro: int | None) -> Row:
        try:
            recipe = recipe_of(self.base, case, self.facts, path, steps=steps, traced=traced, micro=micro)
            launch = begin(recipe, self.hardware, case.ranks)
        except UserError as error:
            return self._refused(case, str(error))
        killed = oom_kills()
        outcome = conduct(launch, self.hardware)
        if outcome.interrupted or outcome.signal is not None:
            raise Interrupted(outcome.code)
        failure = outcome.failure
        if failure is not None and not launch.run_dir.exists():  # it was the user's error, before the first step
            return self._refused(case, failure.message)
        row = row_of(rundir.load(launch.run_dir), self.directory)
        if failure is not None and by_another(failure, killed, oom_kills()):
            log = os.path.relpath(launch.logs / f"rank-{failure.rank}.log")
            return replace(row, status="failed", why=f"rank {failure.rank}: {KILLED}; its log: {log}")
        if outcome.late is not None:
            raise Interrupted(INTERRUPTED, row)
        return row

    def _refused(self, case: Case, message: str) -> Row:
        name, plus, addition = case.short.partition("+")
        return Row(
            label=case.label,
            strategy=name,
            offload=plus + addition,
            ranks=case.ranks,
            run=case.directory,
            status="refused",
            why=bare(message),
            micro_batch=self.micro_batch,
        )


def bare(message: str) -> str:
    """The first line of a user's error, without the file that the recipe was handed on in."""
    first = message.splitlines()[0] if message else "without a word"
    return re.sub(r"^(?:command line: [^:]*|\S*recipe\.yaml(?::\d+)?): ", "", first)


def oom_kills() -> int | None:
    """Processes that the kernel has killed since it started because memory ran out; null where it does not say."""
    try:
        text = Path("/proc/vmstat").read_text(encoding="utf-8")
    except OSError:
        return None
    found = re.search(r"^oom_kill (\d+)$", text, re.MULTILINE)
    return None if found is None else int(found[1])


def by_another(failure: Failure, before: int | None, after: int | None) -> bool:
    """Whether a rank was killed by somebody else than the kernel, which kills where memory runs out and counts it."""
    return failure.message.startswith(KILLED) and before is not None and before == after
