"""Published protocols as data: `probe.preset` names a file whose fields hold where the recipe gives none.

Each file opens with the paper or repository that it follows, and with where it differs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from zerofit.config.errors import UserError, did_you_mean
from zerofit.config.lay import lay
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
    return lay(fields, raw)
