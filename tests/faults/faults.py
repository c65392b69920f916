"""Faults that are put into launchers and ranks themselves, where nothing outside of a process could hit the moment."""

from __future__ import annotations

from typing import Any


def inject(faults: dict[str, Any]) -> None: ...


def in_rank() -> None: ...
