"""Starts `zerofit ...` by forks of one process that has imported everything: a start takes 1 s of two cores, not 15.

Run as a script, by `commands.Zygote`. Each line of standard input is a request and is answered with a line:

    {"start": ["train", "--resume", "run"], "env": ..., "cwd": ..., "out": ..., "faults": {...}}
                                               the launcher's process id
    {"ended": PROCESS_ID}                      its exit status, minus the signal that killed it, or null: it runs

A launcher is a fork of this process and does all that the command does; its ranks, which it would start as processes of
`python -m zerofit.launch.worker`, are forks of it. At the end of standard input all launchers are killed.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from types import SimpleNamespace
from typing import Any, NoReturn

import injected

IMPORTED = (
    "deepspeed",
    "deepspeed.runtime.zero.muon.muon_optimizer",
    "safetensors.torch",
    "transformers.integrations.deepspeed",
    "torch.distributed.checkpoint",
    "torch.distributed.fsdp",
    "zerofit.cli",
    "zerofit.evaluate.evaluators",
    "zerofit.evaluate.reasoning",
    "zerofit.launch.answering",
    "zerofit.launch.group",
    "zerofit.launch.start",
    "zerofit.launch.worker",
    "zerofit.report.table",
    "zerofit.tasks.cached",
    "zerofit.tasks.loop",
    "zerofit.tasks.online",
    "zerofit.train.fsdp2",
    "zerofit.train.zero",
)


def main() -> None:
    for name in IMPORTED:
        importlib.import_module(name)
    assert threading.active_count() == 1, threading.enumerate()  # a fork has the calling thread alone
    gc.collect()
    gc.freeze()
    answers, launchers = os.fdopen(os.dup(1), "w"), set[int]()
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        if "start" in request:
            answer: int | None = start_launcher(request)
            assert answer is not None
            launchers.add(answer)
        else:
            found, status = os.waitpid(request["ended"], os.WNOHANG)
            answer = os.waitstatus_to_exitcode(status) if found else None
            if found:
                launchers.remove(found)
        print(json.dumps(answer), file=answers, flush=True)
    for launcher in launchers:
        os.kill(launcher, signal.SIGKILL)  # its ranks end with it


def start_launcher(request: dict[str, Any]) -> int:
    """A child that does the command and writes to OUT.stdout and OUT.stderr."""
    child = os.fork()
    if child == 0:
        be_launcher(request)
    return child


def be_launcher(request: dict[str, Any]) -> NoReturn:
    """This fork's whole life."""
    out, err = (os.open(request["out"] + end, os.O_WRONLY | os.O_CREAT, 0o666) for end in (".stdout", ".stderr"))
    become(out, err, keep=())
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"], PWD=request["cwd"])
    tempfile.tempdir = None  # as that environment says
    sys.path.insert(0, request["cwd"])  # as `python -m` does
    from zerofit.launch import local

    local.subprocess = SimpleNamespace(  # type: ignore[assignment]
        Popen=Forked, DEVNULL=subprocess.DEVNULL, STDOUT=subprocess.STDOUT
    )
    injected.inject(request["faults"])
    from zerofit import cli

    sys.argv = ["zerofit", *request["start"]]
    leave(cli.main)


class Forked:
    """A rank, in place of subprocess.Popen."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        stdin: int,
        stdout: Any,
        stderr: int,
        env: dict[str, str],
        pass_fds: Sequence[int],
        start_new_session: bool,
    ) -> None:
        assert list(command[1:3]) == ["-m", "zerofit.launch.worker"], command
        assert (stdin, stderr, start_new_session) == (subprocess.DEVNULL, subprocess.STDOUT, True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # the launcher's threads only read files and wait
            self.pid = os.fork()
        if self.pid:
            return
        become(stdout.fileno(), stdout.fileno(), keep=pass_fds)
        os.environ.clear()
        os.environ.update(env)
        from zerofit.launch import worker

        sys.argv = list(command[2:])
        injected.in_rank()
        leave(worker.main)

    def wait(self) -> None:
        os.waitpid(self.pid, 0)


def become(out: int, err: int, keep: Sequence[int]) -> None:
    """What exec would leave of this process: its own session, default signals, the standard files and those to keep."""
    os.setsid()
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    null = os.open(os.devnull, os.O_RDONLY)
    for target, source in enumerate((null, out, err)):
        os.dup2(source, target)
    for descriptor in map(int, os.listdir("/dev/fd")):
        if descriptor > 2 and descriptor not in keep:
            with suppress(OSError):  # that of the listing
                os.close(descriptor)
    # Fresh objects: a thread that is not here any more may have held the old ones' locks.
    sys.stdin = open(0, closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", buffering=1, encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, encoding="utf-8", closefd=False)  # noqa: SIM115


def leave(body: Callable[[], None]) -> NoReturn:
    """Do it, and leave as the interpreter would."""
    code = 0
    try:
        body()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
