"""One mapping of a recipe over another: a stage's over the shared part, a recipe's over a preset's."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from zerofit.config.overrides import Override, apply_overrides, long_form

Raw = dict[str, Any]


def lay(below: Raw, above: Raw) -> Raw:
    """`above` over `below`, mapping by mapping; what else `above` gives stands whole, and drops its rivals."""
    return apply_overrides(below, [Override("", place, value) for place, value in _leaves(below, above)])


def _leaves(below: Raw, above: Raw, place: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for key, value in above.items():
        under = below.get(key)
        if (*place, key) in (("strategy",), ("track",)) and isinstance(value, dict):
            under = long_form(key, under)
            if isinstance(under, str):
                continue  # the schema refuses it
        if isinstance(under, dict) and isinstance(value, dict):
            yield from _leaves(under, value, (*place, key))
        else:
            yield (*place, key), value
