"""What strategy files of other programs are made of: words, where they stand, and what they become here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Word:
    """What a file says of one field of a strategy."""

    key: str
    """The file's own: `mixed_precision`, `zero_optimization.offload_optimizer.device`."""
    written: Any
    """Its value there."""
    value: Any
    """The field's."""


Said = dict[str, Word]
"""By field of a strategy: `name`, `offload`, `precision`, `activation_checkpointing`, `compile`."""

TRUTH = {"yes": True, "true": True, "no": False, "false": False}
"""Text that says true or false, as YAML 1.1 has it."""


def plain(value: Any) -> Any:
    """A value as it is compared: text in lower case, `yes` and `no` as true and false."""
    if not isinstance(value, str):
        return value
    lower = value.strip().lower()
    return TRUTH.get(lower, lower)


def is_count(value: Any, least: int = 0) -> bool:
    """Whether it is a whole number, and at least so many."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= least
