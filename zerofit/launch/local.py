"""Start ranks on this machine, watch them, and end all of them when one fails, on a signal, or with the launcher.

The first SIGINT, SIGTERM or SIGUSR1 is passed on: ranks that have begun save and stop, those that have not die of it.

Not torch elastic: it waits 30 s for survivors before it ends, and prints its own traceback last.
"""

from __future__ import annotations

import codecs
import os
import queue
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from zerofit.config import patience
from zerofit.launch import failure, lifeline
from zerofit.launch.environment import PORTS, World
from zerofit.launch.failure import INTERRUPTED, Failure
from zerofit.launch.last_words import last_words
from zerofit.launch.listener import ASKING, ECHO

GRACE = 5.0  # seconds until a rank that the kernel holds is given up
BLOCK = 4096  # bytes: a drive with less has no room for a file
SETTLE = 0.2  # seconds: the kernel closes a dying rank's connections before it lets anybody know that it is dead


@dataclass(frozen=True)
class Outcome:
    """How the ranks ended: all well, the first failure, the signal that ended them, or saved and stopped.

    `late` is a signal to save and stop that came when all of them were as good as done: they ended well.
    """

    failure: Failure | None = None
    signal: int | None = None
    interrupted: bool = False
    late: int | None = None

    @property
    def code(self) -> int:
        """The exit code it stands for."""
        if self.signal is not None:
            return 128 + self.signal
        if self.interrupted:
            return INTERRUPTED
        return 0 if self.failure is None else self.failure.code


Events = queue.SimpleQueue[int]  # signal numbers, and ENDED; its put may be called in a signal handler
ENDED = 0  # a rank has ended


def run_ranks(
    command: Sequence[str], world_size: int, log_dir: Path, env: Mapping[str, str], lock: int | None = None
) -> Outcome:
    """Run `command` once a rank, with `env` and the rank's variables, until all have ended.

    Output goes to `log_dir`/rank-N.log, rank 0's to our stdout as well. Ranks must call `lifeline.watch()` and should
    run under `failure.guard`. SIGINT, SIGTERM and SIGUSR1 to this process ask them to save and stop, in the seconds
    that ZEROFIT_GRACE of `env` says; a second one, or SIGHUP, ends them (unless it ignores that signal).
    `lock` is a file descriptor that ranks are to hold as well, until they have ended.
    Raises UserError where ZEROFIT_GRACE is no number.
    """
    grace = patience.grace(env)
    failure.clear(log_dir)
    events: Events = queue.SimpleQueue()
    with _signals_to(events), _lifeline() as line:
        ranks, outcome = _Ranks(events), None
        with _followed(log_dir / "rank-0.log"):
            try:
                ranks.start(command, world_size, log_dir, env, line, lock)
                outcome = _watch(ranks, events, log_dir, grace)
            finally:
                if outcome is None or outcome.code != 0:
                    ranks.end()
                ranks.reap()
    _complete_logs(log_dir)
    return outcome


def _watch(ranks: _Ranks, events: Events, log_dir: Path, grace: float) -> Outcome:
    """Wait until all ranks have ended well, or saved and stopped, or for the first other event."""
    asked: int | None = None
    since = 0.0
    while True:
        try:
            event = events.get(timeout=None if asked is None else max(0.0, since + grace - time.monotonic()))
        except queue.Empty:
            _say(f"the ranks have not saved and stopped within {grace:g} s (--grace)")
            return Outcome(signal=asked)
        if event in ASKING and asked is None:
            asked, since = event, time.monotonic()
            ranks.ask()
            _say(f"signal {event}: the ranks save and stop; another signal ends them at once")
        elif event in ASKING and time.monotonic() - since < ECHO:
            continue
        elif event != ENDED:
            return Outcome(signal=event)
        statuses = ranks.statuses()
        failed = {rank: status for rank, status in statuses.items() if status not in (0, INTERRUPTED)}
        if failed:
            ended = _ended_by(failed.values(), asked)
            if ended:
                return Outcome(signal=ended)
            return Outcome(failure=_first_failure(_settled(ranks, failed, log_dir), log_dir))
        if len(statuses) == len(ranks.processes):
            stopped = INTERRUPTED in statuses.values()
            return Outcome(interrupted=stopped, late=None if stopped else asked)


def _settled(ranks: _Ranks, failed: dict[int, int], log_dir: Path) -> dict[int, int]:
    """All that have failed, once their peers had time to report.

    A full drive may have left no room for what a rank had to say, and some in a peer's log: such a rank's peers are
    waited for, for GRACE at most.
    """
    until = time.monotonic() + GRACE
    while True:
        time.sleep(SETTLE)
        failed |= {rank: status for rank, status in ranks.statuses().items() if status not in (0, INTERRUPTED)}
        silent = not failure.records(log_dir) and not any(_said(rank, log_dir) for rank in failed)
        waiting = silent and _is_full(log_dir) and len(failed) < len(ranks.processes)
        if not waiting or time.monotonic() > until:
            return failed


def _ended_by(statuses: Iterable[int], asked: int | None) -> int | None:
    """The signal that ended ranks before they could save: they had not begun, or took longer than they had.

    Not always by way of this process: schedulers signal ranks as well, or alone, and that is no crash either.
    """
    for status in statuses:
        for number in (-status, status - 128):
            if number in ASKING:
                return asked or number
    return None


def _say(line: str) -> None:
    with suppress(OSError):  # nobody reads us any more
        print(line, file=sys.stderr, flush=True)


def _first_failure(failed: Mapping[int, int], log_dir: Path) -> Failure:
    """Which rank failed first: its peers fail of broken connections within milliseconds.

    A rank that ended without a record was not a victim (those get to say so), unless NCCL's watchdog aborted it.
    """
    records = failure.records(log_dir)
    told = {one.rank for one in records}
    untold = {rank: status for rank, status in failed.items() if rank not in told}
    first = next((rank for rank, status in untold.items() if status == failure.USER and _said(rank, log_dir)), None)
    if first is None:
        first = next((rank for rank, status in untold.items() if status != -signal.SIGABRT), None)
    if first is None and records:
        return records[0]
    if first is None:
        first = next(iter(untold))
    return _untold(first, untold[first], log_dir)


def _untold(rank: int, status: int, log_dir: Path) -> Failure:
    """The failure of a rank that could not say why: killed, ended by a library, or without room for its record."""
    lines, said, full = _lines(rank, log_dir), _said(rank, log_dir), _is_full(log_dir)
    if status == failure.USER and said:
        message = said
    elif status < 0:
        message = f"killed by {signal.Signals(-status).name}"
        message += ": most often by the kernel, out of memory" if status == -signal.SIGKILL else ""
    else:
        message = f"ended with status {status}"
        message += f"; no space is left in {log_dir}" if full else ""
    text = "\n".join([*last_words(lines), message])
    user = status == failure.USER and (bool(said) or full)
    return Failure(rank=rank, time=time.time(), user=user, message=message, traceback=text)


def _lines(rank: int, log_dir: Path) -> list[str]:
    return (log_dir / f"rank-{rank}.log").read_text(encoding="utf-8", errors="replace").splitlines()


def _said(rank: int, log_dir: Path) -> str:
    """The user's error that ends a rank's log, or nothing."""
    last = (_lines(rank, log_dir) or [""])[-1]
    return last.removeprefix("error: ") if last.startswith("error: ") else ""


def _is_full(log_dir: Path) -> bool:
    return shutil.disk_usage(log_dir).free < BLOCK


def _complete_logs(log_dir: Path) -> None:
    """Put each record's traceback where people look first."""
    for one in failure.records(log_dir):
        with suppress(OSError), (log_dir / f"rank-{one.rank}.log").open("a", encoding="utf-8") as log:
            log.write(one.traceback)


class _Ranks:
    """The processes. Each leads a session of its own, so that what it starts can be ended with it."""

    def __init__(self, events: Events) -> None:
        self.events = events
        self.processes: list[subprocess.Popen[bytes]] = []
        self.watchers: list[threading.Thread] = []

    def start(
        self, command: Sequence[str], size: int, log_dir: Path, env: Mapping[str, str], line: int, lock: int | None
    ) -> None:
        """Start them all."""
        port = free_port()
        kept = {lifeline.VARIABLE: line} | ({} if lock is None else {lifeline.LOCK: lock})
        descriptors = {name: str(number) for name, number in kept.items()}
        terminal = {"ZEROFIT_TTY": "1", "COLUMNS": str(shutil.get_terminal_size().columns)} if _is_terminal() else {}
        for rank in range(size):
            variables = World(rank, size, rank, size, "127.0.0.1", port).variables()
            with (log_dir / f"rank-{rank}.log").open("ab") as log:
                process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env={**_defaults(), **env, **variables, **terminal, **descriptors},
                    pass_fds=tuple(kept.values()),
                    start_new_session=True,
                )
            self.processes.append(process)
            watcher = threading.Thread(target=self._report, args=(process.pid,), daemon=True)
            watcher.start()
            self.watchers.append(watcher)

    def _report(self, pid: int) -> None:
        # The process stays a zombie until `reap`: until then its id, and so its group's, cannot become another's.
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        self.events.put(ENDED)

    def statuses(self) -> dict[int, int]:
        """Of the ranks that have ended: exit status, or minus the signal that killed it."""
        ended = {}
        for rank, process in enumerate(self.processes):
            result = os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG)
            if result is not None:
                ended[rank] = result.si_status if result.si_code == os.CLD_EXITED else -result.si_status
        return ended

    def ask(self) -> None:
        """Ask them to save and stop; not what they have started, which is theirs to end."""
        for process in self.processes:
            os.kill(process.pid, signal.SIGUSR1)  # not reaped yet: the id is its own

    def end(self) -> None:
        """End those that still run, and whatever all of them have started: nothing else ends a rank that is saving."""
        for process in self.processes:
            with suppress(ProcessLookupError, PermissionError):  # macOS: a group of zombies
                os.killpg(process.pid, signal.SIGKILL)

    def reap(self) -> None:
        """Let go of those that have ended."""
        self._join()
        for process, watcher in zip(self.processes, self.watchers, strict=True):
            if not watcher.is_alive():
                process.wait()

    def _join(self) -> None:
        deadline = time.monotonic() + GRACE
        for watcher in self.watchers:
            watcher.join(max(0.0, deadline - time.monotonic()))


def _defaults() -> dict[str, str]:
    """What one machine's ranks need whatever the caller's environment: prompt logs, and gloo without name look-ups."""
    return {"PYTHONUNBUFFERED": "1", **({"GLOO_SOCKET_IFNAME": "lo"} if sys.platform == "linux" else {})}


def free_port() -> int:
    """A port that nobody listens on now; launchers begin their search at different ones."""
    for offset in range(len(PORTS)):
        port = PORTS[(os.getpid() * 7 + offset) % len(PORTS)]
        with socket.socket() as probe:
            try:
                probe.bind(("", port))
            except OSError:
                continue
            return port
    raise OSError(f"no free port in {PORTS}")


def _is_terminal() -> bool:
    return sys.stdout is not None and sys.stdout.isatty()


@contextmanager
def _lifeline() -> Iterator[int]:
    """The pipe's end that ranks read; ours closes with us."""
    read, write = os.pipe()
    try:
        yield read
    finally:
        os.close(read)
        os.close(write)


@contextmanager
def _signals_to(events: Events) -> Iterator[None]:
    """Queue the signals that end a run, instead of their default effect. Python lets the main thread alone do this."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = (*ASKING, signal.SIGHUP)
    taken = {one: signal.getsignal(one) for one in numbers if signal.getsignal(one) is not signal.SIG_IGN}
    for one in taken:
        signal.signal(one, lambda number, _: events.put(number))
    try:
        yield
    finally:
        for one, handler in taken.items():
            signal.signal(one, handler)


@contextmanager
def _followed(path: Path) -> Iterator[None]:
    """Print what is appended to `path` meanwhile, carriage returns and all.

    From a thread, so that a terminal that has been stopped stops nothing else.
    """
    start = path.stat().st_size if path.exists() else 0
    done = threading.Event()
    thread = threading.Thread(target=_follow, args=(path, start, done), daemon=True)
    path.touch()
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join(GRACE)


def _follow(path: Path, start: int, done: threading.Event) -> None:
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    with path.open("rb") as log:
        log.seek(start)
        while True:
            last = done.is_set()
            text = decoder.decode(log.read())
            try:
                sys.stdout.write(text)
                sys.stdout.flush()
            except (OSError, ValueError):  # nobody reads us any more
                return
            if last:
                return
            done.wait(0.05)
