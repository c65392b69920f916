"""Whether a run that has failed is started again at once: `--auto-resume N`, and `train.on_oom: retry`."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from zerofit.launch import rundir
from zerofit.launch.failure import MEMORY
from zerofit.report.shortage import shortage


class Restarts:
    """At most `most` of them, and none of a run that has come no further than when it failed before."""

    def __init__(self, most: int) -> None:
        self.most, self.done = most, 0
        self._failed: tuple[Path, int, int] | None = None

    def again(self, code: int, run: Path) -> tuple[str, ...] | None:
        """Fields to change with which the run that ended so goes on; null: it does not."""
        if code == MEMORY:
            return smaller(run)
        return () if code == 1 and self.another(run) else None

    def another(self, run: Path) -> bool:
        """Whether to go on with a run that has just failed, which is counted; says why, or why not."""
        if self.most == 0:
            return False
        from zerofit.checkpoint.manifest import NAME, steps

        saved = max((step for step, path in steps(run / "checkpoints").items() if (path / NAME).exists()), default=0)
        place, shown = (run, saved, last_step(run)), os.path.relpath(run)
        if place == self._failed:
            print(f"{shown} has failed twice after step {place[2]}: it is not started again", file=sys.stderr)
            return False
        if self.done == self.most:
            print(f"{shown} has been started again {self.done} times (--auto-resume): no more", file=sys.stderr)
            return False
        self._failed = place
        self.done += 1
        source = f"from step {saved}" if saved else "from its start: it has no checkpoint"
        print(f"{shown} goes on {source} (--auto-resume: {self.done} of {self.most})", file=sys.stderr, flush=True)
        return True


def smaller(run: Path) -> tuple[str, ...] | None:
    """Micro-batches with which a run may go on that had no more memory on a GPU; null where there are none to try.

    Half of what they were, or the largest divisor below: then accumulation makes up the same global batch.
    """
    spec = rundir.load(run)
    short = shortage(rundir.error_of(run) or "")
    if spec.recipe.train.on_oom != "retry" or short is None or short.of != "GPU":
        return None
    micro, shown = spec.batches.micro, os.path.relpath(run)
    if micro == 1:
        print(f"{shown} has no more memory with a micro-batch of 1: there is no smaller one", file=sys.stderr)
        return None
    fields = {"train.micro_batch": _below(micro)}
    if spec.recipe.evaluate.micro_batch is not None and spec.batches.evaluate_micro > 1:
        fields["evaluate.micro_batch"] = _below(spec.batches.evaluate_micro)
    words = tuple(f"{name}={size}" for name, size in fields.items())
    print(f"{shown} goes on with {' '.join(words)} (train.on_oom=retry)", file=sys.stderr, flush=True)
    return words


def _below(size: int) -> int:
    """The largest proper divisor."""
    return next(part for part in range(size // 2, 0, -1) if size % part == 0)


def last_step(run: Path) -> int:
    """The last that metrics.jsonl has; 0 without any."""
    last = 0
    path = run / "metrics.jsonl"
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            last = json.loads(line)["step"]
        except ValueError:  # torn by the crash
            continue
    return last
