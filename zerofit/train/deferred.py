"""Errors of writes amid a collective save: peers wait in its next collective, so this rank has to come there first."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
import torch.distributed as dist

Function = Callable[..., Any]


class OutOfStep(RuntimeError):
    """This rank has left a collective that its peers wait in: the run can only end, with this cause."""


class Deferred:
    """The first error of this rank's writes, until `release`."""

    def __init__(self) -> None:
        self._first: Exception | None = None

    def keep(self, write: Function) -> Function:
        """`write`, but an error is kept instead of raised; it then returns null.

        Raises OutOfStep where not the drive but memory or the connection to the peers gave out.
        """

        @wraps(write)
        def kept(*arguments: Any, **options: Any) -> Any:
            try:
                return write(*arguments, **options)
            except (dist.DistError, torch.OutOfMemoryError, OutOfStep) as error:
                raise OutOfStep(_told(error)) from error
            except Exception as error:
                self._first = self._first or error
                return None

        return kept

    def release(self) -> None:
        """Raise what was kept; begin anew."""
        first, self._first = self._first, None
        if first is not None:
            raise first


def in_step(collective: Function) -> Function:
    """`collective`, but an error that it raises becomes OutOfStep."""

    @wraps(collective)
    def stepping(*arguments: Any, **options: Any) -> Any:
        try:
            return collective(*arguments, **options)
        except Exception as error:
            raise OutOfStep(_told(error)) from error

    return stepping


def _told(error: Exception) -> str:
    return f"rank {dist.get_rank()} failed amid a save that its peers wait in: {type(error).__name__}: {error}"
