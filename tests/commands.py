"""`zerofit ...` as a user sees it: files, exit codes and lines; started by a zygote, so that many starts are cheap."""

from __future__ import annotations

import atexit
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil

ZYGOTE = Path(__file__).with_name("zygote.py")
OUTER = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "LOCAL_SIZE", "MASTER_ADDR", "MASTER_PORT")
PATIENCE = 300.0  # seconds for anything; a start takes a few
LOOK = 0.002  # seconds between two looks


class Zygote:
    """Starts commands. Only for the process that has made it."""

    def __init__(self, directory: Path) -> None:
        self.directory, self.number = directory, 0
        self.env = {name: value for name, value in os.environ.items() if name not in OUTER}
        self.env |= {
            "ZEROFIT_DEVICE": "cpu",
            "DS_ACCELERATOR": "cpu",
            "CUDA_VISIBLE_DEVICES": "",
            "OMP_NUM_THREADS": "1",
        }
        pipe = subprocess.PIPE
        with (directory / "zygote.log").open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, str(ZYGOTE)], stdin=pipe, stdout=pipe, stderr=log, text=True, env=self.env
            )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n", (directory / "zygote.log").read_text()

    def close(self) -> None:
        """Kill whatever still runs."""
        self.process.communicate()

    def ask(self, **request: Any) -> Any:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def start(self, *words: object, cwd: Path, env: Mapping[str, str] | None = None, **faults: Any) -> Command:
        """`zerofit WORDS` in this environment, or the zygote's own, with these faults (injected.py) in it."""
        self.number += 1
        out = str(self.directory / str(self.number))
        start = [str(word) for word in words]
        pid = self.ask(start=start, env=dict(env or self.env), cwd=str(cwd), out=out, faults=faults)
        return Command(self, pid, Path(out))

    def run(self, *words: object, cwd: Path, **faults: Any) -> Command:
        """As `start`; waits for its end."""
        command = self.start(*words, cwd=cwd, **faults)
        command.wait()
        return command


@cache
def zygote() -> Zygote:
    """The one of this process of tests, to its end."""
    directory = Path(tempfile.mkdtemp(prefix="zerofit-tests-"))
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    made = Zygote(directory)
    atexit.register(made.close)
    return made


class Command:
    """One that was started. As a context manager it is killed at the end, with its ranks."""

    def __init__(self, zygote: Zygote, pid: int, out: Path) -> None:
        self.zygote, self.pid, self.out = zygote, pid, out
        self.code: int | None = None
        """Exit code, or minus the signal that killed it; null while it runs."""

    def __enter__(self) -> Command:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)
            self.wait()

    @property
    def stdout(self) -> str:
        return self.out.with_suffix(".stdout").read_text()

    @property
    def stderr(self) -> str:
        return self.out.with_suffix(".stderr").read_text()

    @property
    def said(self) -> str:
        """All of it, for messages of failed tests; but the modules that a crashed rank had loaded."""
        printed, said = (re.sub("Extension modules: .*", "", text) for text in (self.stdout, self.stderr))
        return f"exit code {self.code}\n{printed[-3000:]}\n{said[-5000:]}"

    @property
    def ranks(self) -> list[int]:
        """Process ids of its ranks, in order; none before they are there, and none after its end."""
        try:
            return [child.pid for child in psutil.Process(self.pid).children()]
        except psutil.NoSuchProcess:
            return []

    def poll(self) -> int | None:
        if self.code is None:
            self.code = self.zygote.ask(ended=self.pid)
        return self.code

    def wait(self, limit: float = PATIENCE, look: float = LOOK) -> int:
        """Its exit code."""
        wait_until(lambda: self.poll() is not None, limit, look)
        assert self.code is not None
        return self.code

    def await_(self, condition: Callable[[], bool]) -> None:
        """Wait for something that it is to do."""

        def happened() -> bool:
            done = condition()
            assert done or self.poll() is None, self.said
            return done

        wait_until(happened)

    def refused(self) -> str:
        """Its one line: the exit code was 2 and there is no traceback."""
        self.wait()
        lines = [line for line in self.stderr.splitlines() if line.strip()]
        assert self.code == 2, self.said
        assert len(lines) == 1, self.said
        assert "Traceback" not in self.stdout, self.said
        return lines[0]


def wait_until(condition: Callable[[], bool], limit: float = PATIENCE, look: float = LOOK) -> None:
    """Seconds it may take at most, and between two looks."""
    deadline = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < deadline, f"waited for {limit:g} s"
        time.sleep(look)
