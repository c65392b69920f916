"""The names of splits."""

from __future__ import annotations

from typing import Literal

SplitName = Literal["train", "validation", "test"]
