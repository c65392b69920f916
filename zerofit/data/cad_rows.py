"""CAD models of any source in one form: an id, a caption, the command text, and where clouds and images of it lie."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from zerofit.cad.shape import Box
from zerofit.config.errors import UserError
from zerofit.data.splits import SplitName

SKIP = "mend or remove it, or set data.on_bad_item=skip"


@dataclass(frozen=True)
class Cloud:
    """Where a point cloud lies: a file of its own, or a row of a file of many."""

    path: str
    row: int | None


@dataclass(frozen=True)
class CadRow:
    """A CAD model."""

    id: str
    split: SplitName | None
    """Null where the source says nothing of splits."""
    caption: str | None
    commands: str
    """The construction sequence, as text (cad/text.py)."""
    box: Box | None = None
    """Of the model in the sequence's frame, by which a cloud of another frame is placed; null: no cloud in a file."""
    cloud: Cloud | None = None
    """Null: one is made."""
    images: tuple[str, ...] = ()
    """Files; none: they are rendered."""


@dataclass(frozen=True)
class Bad:
    """A model that cannot be used."""

    id: str
    reason: str

    def line(self) -> str:
        """Both, in a line."""
        return f"{self.id}: {self.reason}"


def refuse(bad: Sequence[Bad], models: int) -> UserError:
    """What to raise where there may be none: the first one, and how many there are."""
    more = f" ({len(bad) - 1:,} more of {models:,} cannot be used either)" if len(bad) > 1 else ""
    return UserError(f"data: {bad[0].line()}; {SKIP}{more}")


def one_line(words: object) -> str:
    """A message without line breaks, not too long."""
    return " ".join(str(words).split())[:300] or type(words).__name__


def repeated(ids: Iterable[str]) -> str | None:
    """The first id that comes twice."""
    seen: set[str] = set()
    for one in ids:
        if one in seen:
            return one
        seen.add(one)
    return None
