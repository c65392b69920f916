"""From a plan to its end: on ranks of our own, or, under an outer launcher, as one of its ranks."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from zerofit.config.errors import UserError
from zerofit.config.schema import Train
from zerofit.config.strategy import AUTO
from zerofit.launch import environment, ops_cache, outer, rundir, shortfall
from zerofit.launch.failure import INTERRUPTED, Failure
from zerofit.launch.local import Outcome, run_ranks
from zerofit.plan.hardware import detect
from zerofit.plan.prediction import Prediction
from zerofit.plan.spec import Hardware
from zerofit.plan.strategy import Chosen


@dataclass(frozen=True)
class Launch:
    """What is to be started. Everything that a worker reads is in files already."""

    run_dir: Path
    arguments: tuple[str, ...]
    """The worker's, without --logs."""
    logs: Path
    result: Path
    """The file that rank 0 completes."""
    ranks: int
    headline: str
    """One line that says what starts."""
    lock: int | None = None
    """File descriptor that holds the run directory."""
    made: tuple[Path, ...] | None = None
    """The directories made for a new run, deepest first; null for a run that was there before."""
    again: str | None = None
    """The command that goes on after an interruption; null where somebody else says it."""
    module: str = "zerofit.launch.worker"
    """What each rank runs."""
    steps: int | None = None
    """Optimizer steps in all; null for an evaluation."""
    prediction: Prediction | None = None
    """Of a training's memory."""

    @property
    def worker_arguments(self) -> list[str]:
        """The worker's, whole."""
        return [*self.arguments, "--logs", str(self.logs)]

    def stopped(self) -> str:
        """What there is after an interruption, and the command that goes on."""
        from zerofit.checkpoint.manifest import NAME, steps

        found = steps(self.run_dir / "checkpoints") if self.steps is not None else {}
        saved = {step: path for step, path in found.items() if (path / NAME).exists()}
        what = f"interrupted; {os.path.relpath(saved[max(saved)])} is saved" if saved else "interrupted"
        again = self.again
        if again is not None and self.steps in saved:  # its test alone is missing
            again = f"zerofit eval {os.path.relpath(self.run_dir)}"
        return what if again is None else f"{what}; go on with: {again}"

    def undo(self) -> None:
        """After the user's mistake: remove a new run that has not made a step, so that a retry finds its place free."""
        if self.made is not None and not rundir.has_begun(self.run_dir):
            rundir.remove(self.run_dir, self.made)


Plan = Callable[[Hardware, "int | None"], Launch]


def check_ranks(hardware: Hardware, ranks: int | None) -> None:
    """Raises UserError where there are fewer GPUs."""
    if hardware.device == "cuda" and ranks is not None and ranks > hardware.count:
        raise UserError(f"--nproc {ranks}: there are {hardware.count} GPUs")


def default_ranks(strategy: str, hardware: Hardware, train: Train | None = None) -> int:
    """One for `single`, else every GPU; on CPU two (where it has two cores), so that strategies differ at all.

    With `train` the most among those that divide its global batch into whole micro-batches, if any do; where these are
    to be chosen, into equal shares.
    """
    if strategy == "single":
        return 1
    most = hardware.count if hardware.device == "cuda" else min(2, hardware.cpus)
    if train is None:
        return most
    micro = 1 if train.micro_batch == AUTO else train.micro_batch
    fitting = (ranks for ranks in range(most, 0, -1) if train.global_batch % (micro * ranks) == 0)
    return next(fitting, most)


def count_ranks(chosen: Chosen, asked: int | None, hardware: Hardware, train: Train) -> int:
    """Ranks of a new run: as many as are asked for, as its strategy's file says, or the default.

    Raises UserError where the file describes another machine than this one, or another number of ranks than is asked.
    """
    outside = environment.outer_world(os.environ) is not None
    if chosen.machines > 1 and not outside:
        how = f" (by {chosen.starter})" if chosen.starter else ""
        raise UserError(
            f"strategy: its file wants ranks on {chosen.machines} machines{how}, and zerofit starts them on this one "
            "alone: start `zerofit train` on all of them with srun, torchrun or deepspeed --hostfile FILE --module"
        )
    if chosen.cpu and hardware.device != "cpu":
        raise UserError("strategy: its file says use_cpu, and this machine has GPUs: set ZEROFIT_DEVICE=cpu")
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").replace(" ", "")
    if hardware.device == "cuda" and chosen.gpus not in (None, visible):
        raise UserError(
            f"strategy: its file says gpu_ids {chosen.gpus}: zerofit takes the GPUs that it sees; "
            f"set CUDA_VISIBLE_DEVICES={chosen.gpus}"
        )
    if chosen.ranks is not None and asked not in (None, chosen.ranks):
        who = "the outer launcher has started" if outside else "--nproc says"
        raise UserError(
            f"strategy: its file asks for {chosen.ranks} ranks (num_processes), and {who} {asked}: change one of them"
        )
    return asked or chosen.ranks or default_ranks(chosen.strategy.name, hardware, train)


def dispatch(
    plan: Plan,
    *,
    nproc: int | None,
    debug: bool,
    show: Callable[[Launch], None],
    hardware: Hardware | None = None,
    more: bool = False,
) -> int:
    """Plan, start ranks, wait for them; `show` prints what came of it. Returns the exit code.

    `plan` gets the hardware (null: what this machine offers) and the number of ranks that was asked for. With `more` to
    be done after it, a signal that came too late to stop the ranks is an interruption all the same. Raises UserError, a
    rank's as well.
    """
    world = environment.outer_world(os.environ)
    if world is not None:
        return outer.run(world, plan, nproc, debug, show)
    hardware = hardware or detect()
    launch = plan(hardware, nproc)
    with _tidied(launch):
        outcome = _run(launch, hardware)
        if outcome.failure is not None:
            if outcome.failure.user:
                launch.undo()
            _tell(outcome.failure, launch, debug)
        elif outcome.interrupted:
            print(launch.stopped(), file=sys.stderr)
        elif outcome.signal is not None:
            logs = f"; logs: {launch.logs}" if launch.run_dir.exists() else ""
            print(f"ended by signal {outcome.signal}{logs}", file=sys.stderr)
        else:
            show(launch)
        return INTERRUPTED if more and outcome.late is not None else outcome.code


def conduct(launch: Launch, hardware: Hardware) -> Outcome:
    """As `dispatch`, of what is planned and on ranks of our own; how it ended is the caller's to say."""
    with _tidied(launch):
        outcome = _run(launch, hardware)
        if outcome.failure is not None and outcome.failure.user:
            launch.undo()
        return outcome


@contextmanager
def _tidied(launch: Launch) -> Iterator[None]:
    from zerofit.checkpoint import memory

    try:
        yield
    finally:
        memory.sweep()  # of ranks that were killed
        if launch.lock is not None:
            os.close(launch.lock)


def _run(launch: Launch, hardware: Hardware) -> Outcome:
    environ = dict(os.environ)
    environment.prepare(environ, hardware, launch.ranks)
    for lock in ops_cache.clear_stale_locks(Path(environ["TORCH_EXTENSIONS_DIR"])):
        print(f"removed the lock of a build that was killed: {lock}")
    print(launch.headline, flush=True)
    started = time.monotonic()
    command = [sys.executable, "-m", launch.module, *launch.worker_arguments]
    outcome = run_ranks(command, launch.ranks, launch.logs, environ, launch.lock)
    wall = round(time.monotonic() - started, 3)
    with suppress(OSError):  # a full drive is often the very reason; how the ranks ended is to be said all the same
        if outcome.failure is not None:
            rundir.add_result(
                launch.result, exit="failed", error=outcome.failure.message, rank=outcome.failure.rank, wall_s=wall
            )
        elif outcome.signal is not None:
            rundir.add_result(launch.result, exit="interrupted", signal=outcome.signal, wall_s=wall)
    return outcome


def _tell(failure: Failure, launch: Launch, debug: bool) -> None:
    """Print a crash, its own words last. A user's error is raised, for the CLI to print."""
    lines = failure.traceback.splitlines()
    if failure.user and not debug:
        raise UserError(failure.message)
    log = launch.logs / f"rank-{failure.rank}.log"
    print(f"rank {failure.rank} failed" + (f"; its log: {log}" if launch.run_dir.exists() else ""), file=sys.stderr)
    print("\n".join(lines if debug else lines[-20:]), file=sys.stderr)
    for line in shortfall.lines(failure.message, failure.traceback, launch.prediction):
        print(line, file=sys.stderr)
