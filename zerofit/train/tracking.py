"""Feeds trackers, each from a thread of its own through a bounded queue: none of them can stop or slow training.

One that raises or does not answer is left out from there on, which is said in a line; metrics.jsonl has all.
RUN/track.json keeps the id under which trackers know the run, so that a resumed run goes on with the same curve.
"""

from __future__ import annotations

import json
import os
import queue
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from zerofit.plan.job import is_job
from zerofit.plan.spec import RunSpec
from zerofit.train.trackers import QUIET, TRACKERS, Curve, Line, Tracker

FILE = "track.json"
ROOM = 10_000
"""Lines that may wait for a tracker."""
GATHER = 0.5
"""Seconds in which lines gather before they are handed over together."""
BLOCKED = 120.0
"""Seconds after which a tracker that does not return is given up; wandb waits for its server for 90."""
LONG, SHORT = 30.0, 5.0
"""Seconds that trackers have for what is left once all else is done, and where the run was asked to stop."""


class Feed:
    """One tracker, its queue and its thread."""

    def __init__(
        self, name: str, tracker: Tracker, room: int = ROOM, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.name, self.tracker, self.clock = name, tracker, clock
        self.dropped = 0
        self.note: str | None = None
        """What the tracker says of its run, until it has been passed on."""
        self._lines: queue.Queue[Line] = queue.Queue(room)
        self._ended = threading.Event()
        self._busy: float | None = None  # since when the tracker has had the thread
        self._reason: str | None = None
        self._thread = threading.Thread(target=self._run, name=f"tracker {name}", daemon=True)

    def start(self, curve: Curve) -> None:
        """Begin, in the thread."""
        self._curve = curve
        self._thread.start()

    def put(self, line: Line) -> None:
        """Hand over a line; where there is no room it is dropped, and counted."""
        try:
            self._lines.put_nowait(line)
        except queue.Full:
            self.dropped += 1

    def end(self) -> None:
        """No more lines will come."""
        self._ended.set()

    def fault(self) -> str | None:
        """Why the tracker is of no use any more."""
        busy = self._busy
        if self._reason is None and busy is not None and self.clock() - busy > BLOCKED:
            return f"it has not answered for {BLOCKED:.0f} s"
        return self._reason

    def done(self, seconds: float) -> bool:
        """Wait for the end; whether it has come."""
        self._thread.join(max(0.0, seconds))
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            self.note = self._timed(self.tracker.start, self._curve)
            while lines := self._gathered():
                self._timed(self.tracker.log, lines)
            self._timed(self.tracker.finish)
        except BaseException as error:  # SystemExit as well: a library's wish ends this thread alone
            first = next(iter(str(error).strip().splitlines()), "")
            self._reason = f"{type(error).__name__}: {first}"[:200].removesuffix(": ")

    def _timed(self, act: Callable[..., Any], *arguments: Any) -> Any:
        self._busy = self.clock()
        result = act(*arguments)
        self._busy = None
        return result

    def _gathered(self) -> list[Line]:
        """What has come by the end of GATHER seconds, if anything; nothing at the end."""
        while True:
            ended = self._ended.wait(GATHER)
            lines = []
            with suppress(queue.Empty):
                while True:
                    lines.append(self._lines.get_nowait())
            if lines or ended:
                return lines


class Tracking:
    """The trackers of a run; `say` prints a line. None of its methods raises, and none but `wait` waits."""

    def __init__(self, spec: RunSpec, feeds: Sequence[Feed], say: Callable[[str], None]) -> None:
        self.spec, self.say = spec, say
        self._feeds = list(feeds)
        self._begun = False

    def start(self, step: int) -> None:
        """Begin, or go on after `step` steps."""
        if not self._feeds:
            return
        for name, value in QUIET.items():
            os.environ.setdefault(name, value)
        curve = Curve(
            id=identity(self.spec),
            project=self.spec.recipe.track.project,
            name=name_of(self.spec.run_dir),
            directory=self.spec.run_dir,
            config=self.spec.model_dump(mode="json"),
            step=step,
        )
        for feed in self._feeds:
            feed.start(curve)
        self._begun = True

    def log(self, record: Mapping[str, Any]) -> None:
        """Pass on a line of metrics.jsonl."""
        if not self._feeds:
            return
        numbers = ((name, value) for name, value in record.items() if isinstance(value, (int, float)))
        figures = {name: float(value) for name, value in numbers if name != "step"}
        line = Line(record["step"], time.time(), figures)
        for feed in self._feeds:
            feed.put(line)
        self._check()

    def end(self) -> None:
        """All lines have come: trackers finish meanwhile."""
        for feed in self._feeds:
            feed.end()
        self._check()

    def wait(self, patience: float) -> None:
        """After `end`: give the trackers so many seconds, all together, to finish. Nothing where none has begun."""
        if not self._begun:
            return
        deadline = time.monotonic() + patience
        late = [feed for feed in self._feeds if not feed.done(deadline - time.monotonic())]
        self._check()
        for feed in self._feeds:
            if feed in late:
                self.say(f"{feed.name}: it has not finished within {patience:.0f} s; metrics.jsonl has all")
            if feed.dropped:
                self.say(f"{feed.name}: too slow, so {feed.dropped} lines were left out; metrics.jsonl has all")
        self._feeds = []

    def _check(self) -> None:
        """Say what is new of trackers, and leave out those that failed."""
        for feed in list(self._feeds):
            note, feed.note = feed.note, None
            if note is not None:
                self.say(f"{feed.name}: {note}")
            fault = feed.fault()
            if fault is not None:
                self._feeds.remove(feed)
                self.say(f"{feed.name}: {fault}; it is left out from here on; metrics.jsonl has all")


def make_tracking(spec: RunSpec, say: Callable[[str], None]) -> Tracking:
    """The trackers that the recipe asks for. Rank 0 alone starts them."""
    return Tracking(spec, [Feed(name, TRACKERS[name]()) for name in spec.recipe.track.to], say)


def name_of(run_dir: Path) -> str:
    """A run's directory's name; a stage's goes behind its job's, as in `digits-probe-01-finetune`."""
    return f"{run_dir.parent.name}-{run_dir.name}" if is_job(run_dir.parent) else run_dir.name


def identity(spec: RunSpec) -> str:
    """The id in RUN/track.json, which is written where there is none.

    Besides, for `zerofit watch`: the project, the trackers, and TRACKIO_DIR where it is set.
    """
    path = spec.run_dir / FILE
    with suppress(OSError, ValueError, KeyError, TypeError):
        return str(json.loads(path.read_text(encoding="utf-8"))["id"])
    made, track = uuid.uuid4().hex, spec.recipe.track
    trackio = os.environ.get("TRACKIO_DIR")
    content = {
        "id": made,
        "project": track.project,
        "to": list(track.to),
        "trackio_dir": None if trackio is None else str(Path(trackio).absolute()),
    }
    part = path.with_suffix(".part")
    with suppress(OSError):  # then a resumed run is a new curve
        part.write_text(json.dumps({"format": 1, **content}, indent=2) + "\n", encoding="utf-8")
        part.replace(path)
    return made
