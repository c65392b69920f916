"""Published protocols as data: `probe.preset` names a file whose fields hold where the recipe gives none.

Each file opens with the paper or repository that it follows, and with where it differs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from zerofit.config.errors import UserError, did_you_mean
from zerofit.config.overrides import EXCLUSIVE
from zerofit.config.yaml_lines import parse

PRESETS = Path(__file__).resolve().parent.parent / "recipes" / "presets"


def preset_names() -> list[str]:
    """Names of the presets that come with zerofit."""
    return sorted(path.stem for path in PRESETS.glob("*.yaml"))


def with_preset(raw: dict[str, Any], label: str) -> dict[str, Any]:
    """A recipe's mapping over that of the preset it names; itself where it names none.

    Raises UserError for an unknown preset; `label` is what the message calls the recipe.
    """
    probe = raw.get("probe")
    name = probe.get("preset") if isinstance(probe, dict) else None
    if not isinstance(name, str):  # null; anything else is the schema's to refuse
        return raw
    if name not in preset_names():
        raise UserError(
            f"{label}: probe.preset: {name!r} is no preset{did_you_mean(name, preset_names())} "
            f"(there are {', '.join(preset_names())})"
        )
    path = PRESETS / f"{name}.yaml"
    fields = parse(path.read_text(encoding="utf-8"), path.name).value
    for group in EXCLUSIVE:
        places = [field.split(".") for field in group]
        if any(_at(raw, place) is not None for place in places):
            for place in places:
                _drop(fields, place)
    return _laid(fields, raw)


def _laid(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """`above` over `below`, mapping by mapping; whatever else `above` gives stands whole."""
    merged = {**below, **above}
    for name in below.keys() & above.keys():
        if isinstance(below[name], dict) and isinstance(above[name], dict):
            merged[name] = _laid(below[name], above[name])
    return merged


def _at(node: Any, place: list[str]) -> Any:
    for key in place:
        node = node.get(key) if isinstance(node, dict) else None
    return node


def _drop(node: Any, place: list[str]) -> None:
    owner = _at(node, place[:-1])
    if isinstance(owner, dict):
        owner.pop(place[-1], None)
