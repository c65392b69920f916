"""`--auto-resume N`: whether a run whose rank crashed is started again."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path


class Restarts:
    """At most `most` of them, and none of a run that has come no further than when it failed before."""

    def __init__(self, most: int) -> None:
        self.most, self.done = most, 0
        self._failed: tuple[Path, int, int] | None = None

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
