"""The one kind of error that is the user's to mend."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """A message of one line a fault: what is wrong (with the wrong input), why, and the right one. The CLI exits 2."""


def did_you_mean(word: str, names: Iterable[str]) -> str:
    """`; did you mean <the name nearest to word>?`, or nothing where none is near."""
    near = difflib.get_close_matches(word, list(names), n=1)
    return f"; did you mean {near[0]}?" if near else ""
