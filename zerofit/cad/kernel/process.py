"""One process in which OpenCASCADE works. It is replaced when it crashes, hangs or takes too much memory.

The kernel of the operating system keeps its limits: CPU time, which unlike time on the clock judges the same on a busy
machine, and address space. Importing OpenCASCADE takes most of a second, so a process lives as long as it is well.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from contextlib import suppress

from zerofit.cad.kernel.results import Invalid
from zerofit.cad.kernel.wire import Reply, following, unpack_reply
from zerofit.config.errors import UserError

CLOCK = 5.0
"""Times its CPU time a request may take on the clock: a process that waits for something uses none."""
STARTING = 300.0
"""Seconds on the clock for the imports, on a machine whose file system is slow."""
ENDING = 60.0
"""Seconds on the clock from when its pipes close until it is dead: on a busy machine an interpreter takes its time."""
OUT_OF_MEMORY = 75
"""The exit status of a process that met its limit."""
SMALL = {"MALLOC_ARENA_MAX": "2", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
"""Environment that keeps address space from growing with the number of cores."""


class Process:
    """A process that answers one request at a time; it is started when it is first asked. `program` is its module."""

    def __init__(self, program: str, seconds: float, mebibytes: int) -> None:
        self._command = [sys.executable, "-m", program, str(seconds), str(mebibytes)]
        self._seconds, self._mebibytes = seconds, mebibytes
        self._process: subprocess.Popen[bytes] | None = None

    def ask(self, request: bytes) -> Reply | Invalid:
        """What it says to a line from `pack_request`. Raises RuntimeError where the fault is its program's."""
        process = self._process
        if process is None or process.poll() is not None:
            process = self._start()
        talk = _Talk(process, self._seconds * CLOCK)
        try:
            reply = talk.reply_to(request)
        except BaseException:  # an interrupt: what it is about to say would be taken for the next reply
            self.end()
            raise
        if reply is not None:
            return reply if reply.invalid is None else Invalid(reply.invalid)
        if talk.over:
            with suppress(subprocess.TimeoutExpired):
                process.wait(ENDING)
        status = process.poll()
        self.end()
        return self._verdict(status)

    def end(self) -> None:
        """Kill it; the next request starts another."""
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        with suppress(BrokenPipeError):  # of what it was still to read
            process.communicate()

    def _start(self) -> subprocess.Popen[bytes]:
        self.end()
        environment = {**os.environ, **SMALL}
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(self._command, stdin=pipe, stdout=pipe, env=environment, bufsize=0)
        ready = _Talk(self._process, STARTING).line()
        if ready is None:  # its traceback went where ours would go
            self.end()
            raise RuntimeError(f"the process of the CAD kernel did not start: {' '.join(self._command)}")
        missing = unpack_reply(ready, b"").invalid
        if missing is not None:
            self.end()
            raise UserError(
                f"OpenCASCADE is installed but does not load: {missing} (Debian and Ubuntu: apt install libgl1)"
            )
        return self._process

    def _verdict(self, status: int | None) -> Invalid:
        """Why there was no reply, from the status with which the process ended; null where it still ran."""
        if status is None:
            return Invalid(f"OpenCASCADE took more than {self._seconds * CLOCK:g} s")
        if status == OUT_OF_MEMORY:
            return Invalid(f"OpenCASCADE needs more than {self._mebibytes} MiB")
        if status >= 0:
            raise RuntimeError(f"the process of the CAD kernel failed (exit status {status}); its traceback is above")
        if -status == signal.SIGPROF:
            return Invalid(f"OpenCASCADE took more than {self._seconds:g} s of processor time")
        return Invalid(f"OpenCASCADE's process was ended by {signal.Signals(-status).name}")


class _Talk:
    """Both pipes of a process until a moment. What fails says so where the process ends, or the moment passes."""

    def __init__(self, process: subprocess.Popen[bytes], seconds: float) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._to, self._from = process.stdin.fileno(), process.stdout.fileno()
        self._until = time.monotonic() + seconds
        self._found = bytearray()
        self.over = False
        """Whether the process has closed its pipes."""
        os.set_blocking(self._to, False)  # who hangs does not read

    def reply_to(self, request: bytes) -> Reply | None:
        """What the process says to a request; null where that fails."""
        if not self.say(request) or (line := self.line()) is None or (rest := self.exactly(following(line))) is None:
            return None
        return unpack_reply(line, rest)

    def say(self, content: bytes) -> bool:
        """Write all of it."""
        left = memoryview(content)
        while left:
            if not self._ready(self._to, select.POLLOUT):
                return False
            try:
                left = left[os.write(self._to, left) :]
            except BrokenPipeError:
                self.over = True
                return False
        return True

    def line(self) -> bytes | None:
        """Read a line, with its newline."""
        while (end := self._found.find(b"\n")) < 0:
            if not self._more():
                return None
        return self._take(end + 1)

    def exactly(self, count: int) -> bytes | None:
        """Read so many bytes."""
        while len(self._found) < count:
            if not self._more():
                return None
        return self._take(count)

    def _take(self, count: int) -> bytes:
        taken = bytes(self._found[:count])
        del self._found[:count]
        return taken

    def _more(self) -> bool:
        if not self._ready(self._from, select.POLLIN):
            return False
        part = os.read(self._from, 1 << 20)
        self._found += part
        self.over = not part
        return not self.over

    def _ready(self, handle: int, event: int) -> bool:
        waiting = select.poll()  # unlike select.select it takes any number of open files
        waiting.register(handle, event)
        left = self._until - time.monotonic()
        return left > 0 and bool(waiting.poll(left * 1000))
