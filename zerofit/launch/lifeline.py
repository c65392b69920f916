"""Ranks end when their launcher is gone, however it went: it holds the other end of a pipe that each rank reads."""

from __future__ import annotations

import os
import signal
import threading

VARIABLE = "ZEROFIT_LIFELINE"  # the pipe's file descriptor


def watch() -> None:
    """Kill this process, and its process group where it leads one, once the launcher's end of the pipe closes."""
    descriptor = os.environ.pop(VARIABLE, None)
    if descriptor is not None:
        threading.Thread(target=_wait, args=(int(descriptor),), name="lifeline", daemon=True).start()


def _wait(descriptor: int) -> None:
    while os.read(descriptor, 1):
        pass
    if os.getpgrp() == os.getpid():
        os.killpg(os.getpid(), signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)
