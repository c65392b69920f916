"""What differs between two recipes, for a run that resumes with another one."""

from __future__ import annotations

import json
from typing import Any

from zerofit.config.schema import Recipe

ABSENT = "absent"


def changed_fields(old: Recipe, new: Recipe) -> list[str]:
    """Lines such as `train.seed: 0 -> 1`, in the recipe's order."""
    before, after = _flat(old.model_dump(mode="json")), _flat(new.model_dump(mode="json"))
    fields = dict.fromkeys([*before, *after])
    return [
        f"{field}: {before.get(field, ABSENT)} -> {after.get(field, ABSENT)}"
        for field in fields
        if before.get(field) != after.get(field)
    ]


def _flat(value: Any, above: str = "") -> dict[str, str]:
    """Dotted field -> written value; a list of plain values is one value, a list of mappings is taken apart."""
    if isinstance(value, dict) and value:
        items = list(value.items())
    elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
        items = list(enumerate(value))
    else:
        return {above: value if isinstance(value, str) else json.dumps(value)}
    flat: dict[str, str] = {}
    for key, item in items:
        flat |= _flat(item, f"{above}.{key}" if above else str(key))
    return flat
