"""A rank's pulse: at every optimizer step and every batch it says where it is, and hears whether all are to stop.

Ranks agree with an all-reduce of one number on the CPU (gloo): no GPU is waited for.
Who is told and who asks is the launcher's to say (`attach`); without it nothing is sent between ranks.
"""

from __future__ import annotations

from typing import Protocol


class Stopped(Exception):
    """All ranks have agreed to stop, and leave their work at the same batch."""


class Listener(Protocol):
    """The launcher's side of a rank."""

    def at(self, phase: str) -> None:
        """Work goes on, and is now at `phase`."""

    def asked(self) -> bool:
        """Whether this rank has been asked to stop."""

    def deafen(self) -> None:
        """All is saved: only the end is left."""


class Pulse:
    """Of this process: signals and watchdogs are a process's, too."""

    def __init__(self) -> None:
        self.listener: Listener | None = None
        self.agreed = False
        """Whether all ranks have agreed to stop."""

    def attach(self, listener: Listener) -> None:
        """From now on `listener` is told, and asked. To be done by all ranks, or by none."""
        self.listener = listener

    def at(self, phase: str) -> None:
        """Say that work goes on and what comes now: a few words, `step 7: waiting for data`."""
        if self.listener is not None:
            self.listener.at(phase)

    def asked(self, phase: str) -> bool:
        """As `at`; whether this rank has been asked to stop, whatever the others have. Not collective."""
        self.at(phase)
        return self.listener is not None and self.listener.asked()

    def reached(self, phase: str) -> bool:
        """As `at`; whether any rank has been asked to stop. Collective."""
        if self.listener is None:
            return False
        import torch
        import torch.distributed as dist

        self.listener.at(phase)
        flag = torch.tensor([self.agreed or self.listener.asked()], dtype=torch.int32)
        if dist.get_world_size() > 1:
            dist.all_reduce(flag, op=dist.ReduceOp.MAX)
        self.agreed = bool(flag.item())
        return self.agreed

    def leave_if_asked(self, phase: str) -> None:
        """As `reached`. Collective. Raises Stopped where a rank has been asked to stop."""
        if self.reached(phase):
            raise Stopped


PULSE = Pulse()
