"""How a rank tells why it failed: logs/rank-N.error.json, written before its peers can notice."""

from __future__ import annotations

import atexit
import json
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NoReturn, TextIO

from zerofit.config.errors import UserError
from zerofit.launch.shortfall import ran_out

INTERRUPTED = 4
"""Exit code of a rank, and of the command, that was asked to stop, has saved and stopped."""
USER = 2
"""Exit code where the user can mend it."""
MEMORY = 3
"""Exit code where memory ran out: it would run out again."""
END = 60.0
"""Seconds for what libraries do at the end: one that waits for a network in vain must not hold a rank."""


@dataclass(frozen=True)
class Failure:
    """Why one rank ended."""

    rank: int
    time: float
    """Seconds since the epoch."""
    user: bool
    """The user's error, not a crash."""
    message: str
    """`ValueError: what it said`; a user's error without the type."""
    traceback: str
    """Whole, or the end of the rank's log where it left none."""

    @property
    def code(self) -> int:
        """The exit code it stands for."""
        if self.user:
            return USER
        return 1 if ran_out(self.message) is None else MEMORY


def guard(rank: int, logs: Path, body: Callable[[], None], echo: Sequence[TextIO] = ()) -> None:
    """Run `body`. If it raises, write the record (and tell it on `echo`) and leave the process at once with its code.

    At once: an interpreter that shuts down in good order can wait for ever for communication threads of a broken world.
    """
    try:
        body()
    except Exception as error:
        user = isinstance(error, UserError)
        message = str(error) if user else f"{type(error).__name__}: {error}"
        failure = Failure(rank, time.time(), user, message, traceback.format_exc())
        try:
            write(logs, failure)
        except OSError:  # a full drive, or a directory that is gone: the peers must hear of the end all the same
            echo = echo or [sys.stderr]
        for stream in echo:
            with suppress(OSError):
                print(as_lines(message) if user else failure.traceback, file=stream, flush=True)
        leave(failure.code)


def as_lines(message: str) -> str:
    """A user's error as it is printed."""
    return "\n".join(f"error: {line}" for line in message.splitlines())


def finish(code: int = 0) -> NoReturn:
    """Leave the process, well: run what libraries have registered for the end, then go.

    The interpreter's own shutdown is left out: after collectives on gloo it aborts now and then, because C++
    threads are still there ("terminate called without an active exception"), and a finished rank would count as failed.
    """
    limit = threading.Timer(END, leave, (code,))
    limit.daemon = True
    limit.start()
    threading._shutdown()  # type: ignore[attr-defined]  # ends executors' idle threads, which joining alone waits for
    atexit._run_exitfuncs()
    leave(code)


def leave(code: int) -> NoReturn:
    """Leave the process at once."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):
            stream.flush()
    os._exit(code)


def write(logs: Path, failure: Failure) -> None:
    """Leave the record, whole or not at all."""
    path = logs / f"rank-{failure.rank}.error.json"
    part = path.with_suffix(".part")
    part.write_text(json.dumps(asdict(failure), indent=1), encoding="utf-8")
    part.replace(path)


def records(logs: Path) -> list[Failure]:
    """The records that ranks have left, first failure first."""
    texts = [path.read_text(encoding="utf-8") for path in logs.glob("rank-*.error.json")]
    return sorted((Failure(**json.loads(text)) for text in texts), key=lambda failure: failure.time)


def clear(logs: Path) -> None:
    """Make the log directory, and remove an earlier attempt's records from it."""
    logs.mkdir(parents=True, exist_ok=True)
    for path in (*logs.glob("rank-*.error.json"), *logs.glob("rank-*.stalled.json")):
        path.unlink()
