"""Whether an answer is the gold answer, as Math-Verify (parsing by latex2sympy2_extended, comparison by sympy) says.

In a process of its own, with limits of CPU time and memory that the kernel keeps. Math-Verify's time limits use
SIGALRM: outside the main thread they raise ValueError, in it they take the signal from whoever uses it, and they allow
5 s for each parse and each comparison and any amount of memory. Within them (2 cores, Math-Verify 0.9.0) `10^{10^{10}}`
took 5 s, `((9!)!)!` 5 s and 0.8 GB, 2,000 brackets 5 s in the parse alone. The process pools of the standard library
cannot end one worker, and fork, or import the main program again, beside CUDA.

A round trip costs 0.4 ms beside 1 to 3 ms for an answer, so one process a rank is enough; after an answer that is given
up another is started, in half a second. CPU time, unlike time on the clock, judges the same on a busy machine.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache

SECONDS = 3.0
"""Of CPU time for one answer. The slowest of 18,000 gold answers of GSM8K, MATH, AIME and SVAMP took 0.3 s."""
MEBIBYTES = 2048
"""Of address space. The process begins with about 300."""
PATIENCE = 60.0
"""Seconds on the clock after which a process that does not even get CPU time is given up."""
STARTING = 300.0
"""Seconds on the clock for the imports, on a machine whose file system is slow."""


@dataclass(frozen=True)
class Verdict:
    """What came out."""

    readable: bool
    """Whether the gold answer could be read."""
    correct: bool
    """Whether the answer is the gold answer."""
    answer: str | None
    """The answer as it was written; null where none was found."""


class Verifier:
    """A process that compares answers. Any thread may ask; one is served at a time."""

    def __init__(self, seconds: float = SECONDS, mebibytes: int = MEBIBYTES) -> None:
        self.given_up = 0
        """How many answers took too much time or memory."""
        self._arguments = [str(seconds), str(mebibytes)]
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None

    def judge(self, gold: str, texts: Sequence[str]) -> Verdict | None:
        """Whether any of `texts`, readings of one answer, is the gold answer; null where that took too much."""
        request = json.dumps({"gold": gold, "texts": list(texts)}).encode() + b"\n"
        with self._lock:
            reply = self._ask(request)
            if reply is None:
                self.given_up += 1
                self._end()
                return None
        return Verdict(**json.loads(reply))

    def close(self) -> None:
        """End the process."""
        with self._lock:
            self._end()

    def _ask(self, request: bytes) -> bytes | None:
        process = self._process
        if process is None or process.poll() is not None:
            process = self._start()
        assert process.stdin is not None
        try:
            process.stdin.write(request)
            process.stdin.flush()
        except BrokenPipeError:  # it has gone away in this moment
            return None
        return _line(process, PATIENCE)

    def _start(self) -> subprocess.Popen[bytes]:
        self._end()
        command = [sys.executable, "-m", "zerofit.measure.verifier_process", *self._arguments]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        if _line(self._process, STARTING) != b"ready":  # its traceback went where ours would go
            self._end()
            raise RuntimeError(f"the process that compares answers did not start: {' '.join(command)}")
        return self._process

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        with suppress(BrokenPipeError):  # of what it was still to read
            process.communicate()


def _line(process: subprocess.Popen[bytes], seconds: float) -> bytes | None:
    """What the process writes next, without its newline; null where it ends, or `seconds` pass, before that."""
    assert process.stdout is not None
    handle, until, found = process.stdout.fileno(), time.monotonic() + seconds, b""
    waiting = select.poll()  # unlike select.select it takes any number of open files
    waiting.register(handle, select.POLLIN)
    while not found.endswith(b"\n"):
        left = until - time.monotonic()
        if left <= 0 or not waiting.poll(left * 1000):
            return None
        part = os.read(handle, 65536)
        if not part:
            return None
        found += part
    return found[:-1]


def shared_verifier() -> Verifier:
    """This process's own. A fork gets another: two must not talk into one pipe."""
    return _verifier_of(os.getpid())


@lru_cache(maxsize=1)
def _verifier_of(process: int) -> Verifier:
    import atexit

    verifier = Verifier()
    atexit.register(lambda: verifier.close() if os.getpid() == process else None)
    return verifier
