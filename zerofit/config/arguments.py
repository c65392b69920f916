"""Arguments of a Python call as fields of a recipe: checked as a file's are, in messages that quote the call."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from zerofit.config.errors import UserError
from zerofit.config.explain import Origin, explain
from zerofit.config.fields import Place
from zerofit.config.lay import lay
from zerofit.config.overrides import Override, apply_overrides
from zerofit.config.presets import with_preset
from zerofit.config.schema import Recipe
from zerofit.config.section import Section
from zerofit.config.yaml_lines import Document


@dataclass(frozen=True)
class Argument(Override):
    """One argument: `num_epochs=3` is the field train.epochs."""

    call: str
    """The function that was called."""

    @property
    def where(self) -> str:
        """What stands for file and line in messages."""
        return f"{self.call}({self.text})"


class Call(Origin):
    """The arguments are all that was written; `label` is the function."""

    def of(self, place: Place) -> str:
        """`create_data_loaders(limit=0)`, or `create_data_loaders(source='folder'): data` for what several wrote."""
        words = tuple(str(part) for part in place)
        field = f": {'.'.join(words)}" if words else ""
        for one in reversed(self.overrides):
            if one.place == words[: len(one.place)]:
                return one.where if one.place == words else one.where + field
        below = ", ".join(one.text for one in self.overrides if one.place[: len(words)] == words)
        return f"{self.label}({below}){field}"


def argument(call: str, name: str, field: str, value: Any) -> Argument:
    """The argument `name` of the function `call`, as the recipe's dotted `field`."""
    if isinstance(value, Path):
        value = str(value)
    shown = repr(value)
    text = f"{name}={shown if len(shown) <= 80 else f'{shown[:77]}...'}"
    plain = value.model_dump(mode="json") if isinstance(value, Section) else value
    return Argument(text, tuple(field.split(".")), plain, call)


def recipe_of(call: str, base: dict[str, Any], arguments: Sequence[Argument]) -> Recipe:
    """The recipe that the arguments make, over a preset that they name, over `base`.

    Raises UserError: one line for each fault.
    """
    raw = lay(base, with_preset(apply_overrides({}, arguments), call))
    try:
        return Recipe.model_validate(raw)
    except ValidationError as error:
        faults = explain(error, Call(call, Document(raw, None), arguments))
        raise UserError("\n".join(dict.fromkeys(faults))) from None  # an argument may be two fields
