"""Faults that are put into launchers and ranks themselves, where nothing from outside could hit the moment.

signal: {"number": 15, "to": "launcher" or "rank", "rank": R, "before": "MODULE:FUNCTION" or "phase": "step 5"}
    Rank R (null: the launcher itself) sends that signal when it comes there, and waits until it has arrived. At a phase
    it first waits until all ranks listen: the signal ends those that do not.
crash: {"run": "ddp-x2", "rank": R, "kind": "OutOfMemoryError", "message": "CUDA out of memory. ...", "above": 4}
    In the run whose directory has that name the second step of rank R ends with this error, of torch or Python; where
    `above` is given, if its micro-batch is larger than that.
clock: true
    `time.time` of launcher and ranks jumps a day forwards and backwards.
"""

from __future__ import annotations

import importlib
import itertools
import os
import sys
import time
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

DAY = 86_400.0
_given: dict[str, Any] = {}


def inject(faults: dict[str, Any]) -> None:
    """Into this process, a launcher; its ranks will have them, too."""
    _given.update(faults)
    if faults.get("clock"):
        jump()
    arm(None)


def in_rank() -> None:
    arm(int(os.environ["RANK"]))
    wanted = _given.get("crash")
    if wanted is not None and wanted["rank"] == int(os.environ["RANK"]) and Path(sys.argv[1]).name == wanted["run"]:
        crash(wanted["kind"], wanted["message"], wanted.get("above", 0))


def crash(kind: str, message: str, above: int) -> None:
    """Let this rank's second step end so."""
    import torch

    from zerofit.train.image_trainer import ImageTrainer

    loss = ImageTrainer.compute_loss

    def crashing(self: ImageTrainer, *arguments: Any, **options: Any) -> Any:
        if self.state.global_step == 1 and self.args.per_device_train_batch_size > above:
            raise {"OutOfMemoryError": torch.OutOfMemoryError, "ValueError": ValueError}[kind](message)
        return loss(self, *arguments, **options)

    ImageTrainer.compute_loss = crashing  # type: ignore[method-assign]


def jump() -> None:
    """Add nothing, a day, and minus a day in turns."""
    real, offsets = time.time, itertools.cycle((0.0, DAY, -DAY))
    time.time = lambda: real() + next(offsets)


def arm(rank: int | None) -> None:
    """Let this process send the signal when its moment comes, if it is the one to send it."""
    wanted = _given.get("signal")
    if wanted is None:
        return
    if "phase" in wanted and rank is not None:
        say_when_listening(rank)
    if wanted["rank"] != rank:
        return
    target = os.getppid() if wanted["to"] == "launcher" and rank is not None else os.getpid()

    def send() -> None:
        os.kill(target, wanted["number"])
        await_it()

    if "phase" in wanted:
        from zerofit.launch.listener import Listener

        at, sent = Listener.at, []

        def at_phase(self: Listener, phase: str) -> None:
            at(self, phase)
            if phase.startswith(wanted["phase"]) and not sent:
                sent.append(phase)
                await_all()
                send()

        Listener.at = at_phase  # type: ignore[method-assign]
        return
    module, _, name = wanted["before"].partition(":")
    owner = importlib.import_module(module)
    setattr(owner, name, before(getattr(owner, name), send))


def say_when_listening(rank: int) -> None:
    """Leave a file once this rank takes signals over."""
    from zerofit.launch.listener import Listener

    listen = Listener._listen

    def saying(self: Listener) -> None:
        listen(self)
        Path(f"listening-{os.getppid()}-{rank}").touch()

    Listener._listen = saying  # type: ignore[method-assign]


def await_all() -> None:
    """Go on once every rank of this run has said so."""
    while not all(Path(f"listening-{os.getppid()}-{rank}").exists() for rank in range(int(os.environ["WORLD_SIZE"]))):
        time.sleep(0.001)


def before(function: Callable[..., Any], act: Callable[[], None]) -> Callable[..., Any]:
    """`function`, with `act` before its first call."""
    done: list[bool] = []

    @wraps(function)
    def acting(*arguments: Any, **options: Any) -> Any:
        if not done:
            done.append(True)
            act()
        return function(*arguments, **options)

    return acting


def await_it() -> None:
    """Go on once this rank is asked to stop; who does not listen yet is ended here."""
    from zerofit.train.pulse import PULSE

    while PULSE.listener is None or not PULSE.listener.asked():
        time.sleep(0.001)
