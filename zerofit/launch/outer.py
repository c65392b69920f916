"""As a rank of torchrun, deepspeed, accelerate or srun: every rank runs the CLI, rank 0 plans, and all do the work."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, Literal, TextIO

from zerofit.config.errors import UserError
from zerofit.launch import environment, failure, group, rundir, worker
from zerofit.launch.environment import World
from zerofit.launch.failure import Failure
from zerofit.plan.hardware import detect
from zerofit.plan.spec import Hardware
from zerofit.train.pulse import Stopped

if TYPE_CHECKING:
    from zerofit.launch.dispatch import Launch, Plan


class Interrupted(BaseException):
    """The outer launcher, or Ctrl-C, ends this rank."""


def run(world: World, plan: Plan, nproc: int | None, debug: bool, show: Callable[[Launch], None]) -> int:
    """This rank's whole life; rank 0 alone prints. Returns where planning fails, else leaves."""
    hardware = detect()
    world, hardware = _place(world, hardware)
    environment.prepare(os.environ, hardware, world.local_size)
    os.environ.update(world.variables())
    group.join(world, _meeting_device(world, hardware))
    launch = _plan_together(world, lambda: _plan(world, plan, hardware, nproc), debug)
    if isinstance(launch, int):
        group.leave()
        return launch
    echo = _keep_log(world, launch.logs)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    try:
        failure.guard(world.rank, launch.logs, lambda: _work(world, launch), echo)
    except Interrupted as interrupted:
        number = interrupted.args[0]
        _record_end(world, launch, {"exit": "interrupted", "signal": number})
        failure.leave(128 + number)
    if world.rank == 0:
        show(launch)
    return failure.finish()


def _place(world: World, hardware: Hardware) -> tuple[World, Hardware]:
    """Make local rank and GPU agree, and count the GPUs of all hosts, which the plan is for.

    srun with a GPU bound to each task shows every rank just its own, as number 0.
    """
    if hardware.device != "cuda":
        return world, hardware
    bound = "SLURM_STEP_ID" in os.environ and hardware.count == 1 < world.local_size
    count = world.size if bound else hardware.count * world.size // world.local_size
    return replace(world, local_rank=0) if bound else world, hardware.model_copy(update={"count": count})


def _meeting_device(world: World, hardware: Hardware) -> Literal["cpu", "cuda"]:
    """Where ranks meet to hear the plan: on the CPU when this one host has too few GPUs, which every plan refuses."""
    return "cpu" if world.size == world.local_size > hardware.count > 0 else hardware.device


def _plan(world: World, plan: Plan, hardware: Hardware, nproc: int | None) -> Launch:
    if nproc is not None and nproc != world.size:
        raise UserError(f"--nproc {nproc}: the outer launcher has started {world.size} ranks; leave --nproc out")
    launch = plan(hardware, world.size)
    failure.clear(launch.logs)
    print(launch.headline, flush=True)
    return launch


def _plan_together(world: World, plan: Callable[[], Launch], debug: bool) -> Launch | int:
    """Rank 0's plan on every rank, or the exit code where it failed. Collective."""
    import torch.distributed as dist

    answer: list[Launch | int | None] = [None]
    if world.rank == 0:
        try:
            answer = [plan()]
        except Exception as error:
            # Said before the others hear of it: a launcher that sees one of them end may kill this rank.
            user = isinstance(error, UserError)
            text = traceback.format_exc() if debug or not user else ""
            print(text + (failure.as_lines(str(error)) if user else ""), file=sys.stderr, flush=True)
            answer = [2 if user else 1]
    dist.broadcast_object_list(answer, src=0)
    assert answer[0] is not None
    return answer[0]


def _keep_log(world: World, logs: Path) -> list[TextIO]:
    """Send this rank's output to its log; rank 0's to where it went before as well. Returns where errors are told."""
    path = logs / f"rank-{world.rank}.log"
    logs.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    if world.rank == 0:
        if sys.stdout.isatty():
            os.environ.update(ZEROFIT_TTY="1", COLUMNS=str(shutil.get_terminal_size().columns))
        source, target = os.pipe()
        subprocess.Popen(["sh", "-c", 'trap "" INT TERM USR1; exec tee -a "$0"', path], stdin=source)
        os.close(source)
        echo = [sys.stderr]
    else:
        target = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        echo = [sys.stderr, os.fdopen(os.dup(2), "w")]
    os.dup2(target, 1)
    os.dup2(target, 2)
    os.close(target)
    return echo


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise Interrupted(number)


def _work(world: World, launch: Launch) -> None:
    def end(how: int | Failure) -> None:
        if isinstance(how, int):
            _record_end(world, launch, {"exit": "interrupted", "signal": how})
            failure.leave(128 + how)
        with suppress(OSError):  # a full drive, say
            failure.write(launch.logs, how)
        _record_end(world, launch, {"exit": "failed", "error": how.message, "rank": how.rank})
        print(how.traceback, file=sys.stderr)
        failure.leave(how.code)

    try:
        arguments = worker.parse(launch.worker_arguments)
        device, do = worker.duty(arguments, world)
        worker.listen(arguments, device, world, end, again=True)
        do()
        group.leave()
    except Stopped:
        if world.rank == 0:
            print(launch.stopped(), flush=True)
        worker.leave_stopped()
    except Exception as error:
        what = {"exit": "failed", "error": f"{type(error).__name__}: {error}"}
        _record_end(world, launch, what, user=isinstance(error, UserError))
        raise


def _record_end(world: World, launch: Launch, end: dict[str, Any], user: bool = False) -> None:
    """Rank 0 writes how the run ended; a rank that failed before is the reason of whatever happens to this one."""
    if world.rank == 0:
        first = next(iter(failure.records(launch.logs)), None)
        if first is not None:
            end, user = {"exit": "failed", "error": first.message, "rank": first.rank}, first.user
        with suppress(OSError):  # a full drive must not hide the reason
            rundir.add_result(launch.result, **end)
            if user:
                launch.undo()
