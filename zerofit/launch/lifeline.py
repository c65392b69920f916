"""Ranks end when their launcher is gone, however it went: it holds the other end of a pipe that each rank reads.

Until they have ended they hold the run directory's lock as it did, so that no other launcher begins beside them.
"""

from __future__ import annotations

import os
import signal
import threading
from contextlib import suppress
from functools import partial

VARIABLE = "ZEROFIT_LIFELINE"  # the pipe's file descriptor
LOCK = "ZEROFIT_LOCK"  # the lock's


def watch() -> None:
    """Kill this process, and its process group where it leads one, once the launcher's end of the pipe closes.

    The lock, where the launcher has handed one on, is this process's alone: what it starts does not hold it.
    """
    lock = os.environ.pop(LOCK, None)
    if lock is not None:
        os.set_inheritable(int(lock), False)
        os.register_at_fork(after_in_child=partial(_let_go, int(lock)))  # of a loader's worker, say
    descriptor = os.environ.pop(VARIABLE, None)
    if descriptor is not None:
        threading.Thread(target=_wait, args=(int(descriptor),), name="lifeline", daemon=True).start()


def _let_go(lock: int) -> None:
    with suppress(OSError):
        os.close(lock)


def _wait(descriptor: int) -> None:
    while os.read(descriptor, 1):
        pass
    if os.getpgrp() == os.getpid():
        os.killpg(os.getpid(), signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)
