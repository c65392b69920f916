"""What pydantic found wrong with a recipe: file, line, field, wrong value, reason and the right name."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, get_args

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from zerofit.config.errors import did_you_mean
from zerofit.config.fields import Place, choices, discriminator, dotted, is_section, locate, names, tags
from zerofit.config.overrides import Override
from zerofit.config.schema import Recipe
from zerofit.config.yaml_lines import Document

NOUNS = {
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_parsing_size": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "string_type": "text",
    "path_type": "a path",
    "list_type": "a list",
    "tuple_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
}
BOUNDS = {
    "greater_than": ("above", "gt"),
    "greater_than_equal": ("at least", "ge"),
    "less_than": ("below", "lt"),
    "less_than_equal": ("at most", "le"),
}

Found = tuple[ErrorDetails, Any]
"""An error, and the schema's type at its place."""


@dataclass(frozen=True)
class Origin:
    """Where the parts of a recipe were written."""

    label: str
    """The recipe file, as the user calls it."""
    document: Document
    """Its text."""
    overrides: Sequence[Override]
    """What the command line laid over it."""
    stage: int | None = None
    """The number, from 0, of the stage whose recipe it is; null for a recipe without stages."""
    apart: Sequence[str] = ()
    """What stands above the stages and does not reach this one."""

    def of(self, place: Place) -> str:
        """`digits.yaml:12: train.seed`, or `command line: train.seed=x` for what an override wrote."""
        words = tuple(str(part) for part in place)
        field = ".".join(words)
        for override in reversed(self.overrides):
            if override.place == words:
                return override.where
            if override.place == words[: len(override.place)]:
                return f"{override.where}: {field}"
        below = [override for override in self.overrides if override.place[: len(words)] == words]
        written = self._written(place)
        if below and not self.document.has(written):
            return f"{below[-1].where}: {field}"
        field = ".".join(str(part) for part in written)
        line = self.document.line(written)
        file = self.label if line is None else f"{self.label}:{line}"
        laid = f" with {', '.join(override.text for override in below)}" if below else ""
        return f"{file}{laid}: {field}"

    def _written(self, place: Place) -> Place:
        """Where the text gives what stands at `place`: in the stage, or above the stages where that says more of it."""
        if self.stage is None:
            return place
        own: Place = ("stages", self.stage)
        for length in range(len(place), 0, -1):
            if self.document.has((*own, *place[:length])):
                break
            if place[0] not in self.apart and self.document.has(place[:length]):
                return place
        return (*own, *place)


def explain(error: ValidationError, origin: Origin) -> list[str]:
    """One line for each fault."""
    faults: dict[Place, list[Found]] = {}
    for details in error.errors(include_url=False):
        place, kind = locate(details["loc"])
        if details["type"] in ("union_tag_invalid", "union_tag_not_found"):
            place += (details["ctx"]["discriminator"].strip("'"),)
        faults.setdefault(place, []).append((details, kind))
    # A list with a wrong entry is also reported as too short.
    wrong = [
        place for place in faults if not (_short(faults[place]) and any(_inside(other, place) for other in faults))
    ]
    return [f"{origin.of(place)}: {reason(faults[place])}" for place in wrong]


def _short(found: Sequence[Found]) -> bool:
    return found[0][0]["type"] == "too_short"


def _inside(place: Place, other: Place) -> bool:
    return len(place) > len(other) and place[: len(other)] == other


def reason(found: Sequence[Found]) -> str:
    """What is wrong at one place, where a union of types reports once for each of them."""
    details, kind = found[0]
    wrong, value, context = details["type"], details["input"], details.get("ctx", {})
    nouns = [NOUNS[other["type"]] for other, _ in found if other["type"] in NOUNS]
    if nouns == ["a mapping"] and value is None:
        return f"is empty: give it fields{'' if _required(details['loc']) else ', or leave it out'}"
    if nouns:
        nouns += [other["ctx"]["expected"].strip("'") for other, _ in found if other["type"] == "literal_error"]
        hint = ": put it in quotes" if nouns == ["text"] and isinstance(value, int | float) else ""
        return f"{show(value)} is not {' or '.join(dict.fromkeys(nouns))}{hint}"
    if wrong in BOUNDS:
        word, key = BOUNDS[wrong]
        return f"must be {word} {context[key]:.12g}, not {show(value)}"
    if wrong == "extra_forbidden":
        return _unknown(details["loc"])
    if wrong == "missing":
        return "missing"
    if wrong == "literal_error":
        return _not_one_of(value, choices(kind))
    if wrong == "union_tag_invalid":
        return _not_one_of(context["tag"], _tags(kind))
    if wrong == "union_tag_not_found":
        return f"missing: one of {', '.join(_tags(kind))}"
    if wrong in ("too_long", "too_short"):
        limit = context.get("max_length", context.get("min_length"))
        return f"has {context['actual_length']} entries, but takes {limit}{' or more' if wrong == 'too_short' else ''}"
    if wrong == "string_pattern_mismatch":
        return f"{show(value)} is not a plain name: it takes no slash and no dot in front"
    if wrong == "value_error":
        return str(context["error"])
    return f"{show(value)}: {details['msg']}"


def show(value: Any) -> str:
    """A value as the user would write it, cut to one short line."""
    text = repr(value) if isinstance(value, str) else json.dumps(value, default=str)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _tags(union: Any) -> list[str]:
    return [name for section in get_args(union) for name in tags(section)]


def _not_one_of(value: Any, allowed: Sequence[str]) -> str:
    return f"{show(value)} is not one of {', '.join(allowed)}{did_you_mean(str(value), allowed)}"


def _required(location: Sequence[str | int]) -> bool:
    section = locate(location[:-1])[1]
    return is_section(section) and bool(section.model_fields[location[-1]].is_required())


def _unknown(location: Sequence[str | int]) -> str:
    """With the nearest field of the same section, or the field of that name in another, or all that the section has."""
    word, place, section = str(location[-1]), locate(location)[0], locate(location[:-1])[1]
    here = [*names(section), *(("stages",) if section is Recipe else ())]
    elsewhere = [field for field in dotted() if field.rpartition(".")[2] == word]
    if ".".join(map(str, place)) in elsewhere:
        return f"is no field of {discriminator(section)} {' or '.join(tags(section))}"
    near = "" if elsewhere and section is Recipe else did_you_mean(word, here)
    if not near and elsewhere:
        near = f"; did you mean {elsewhere[0]}?"
    return f"unknown field{near or '; the fields here are ' + ', '.join(names(section))}"
