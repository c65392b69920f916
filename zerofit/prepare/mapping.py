"""`--fields question=problem,answer=solution`: which of a row's fields fill those that forms know."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from zerofit.config.errors import UserError, did_you_mean
from zerofit.prepare.forms import FORMS, NAMES, recognise
from zerofit.prepare.rows import Fields, shown

MISSING = object()


def parse_fields(text: str) -> dict[str, str]:
    """`known=theirs,...`; theirs may lead into objects (`reward.ground_truth`). Raises UserError."""
    mapping: dict[str, str] = {}
    for word in filter(None, (part.strip() for part in text.split(","))):
        known, equals, theirs = (part.strip() for part in word.partition("="))
        if not equals or not theirs:
            raise UserError(f"--fields {word}: write known=theirs, for example question=problem")
        if known not in NAMES:
            hint = f"{did_you_mean(known, NAMES)} (they are {', '.join(NAMES)})"
            raise UserError(f"--fields {word}: {known} is no field of any form{hint}")
        if known in mapping:
            raise UserError(f"--fields {word}: {known} is given twice")
        mapping[known] = theirs
    return mapping


def known_form(value: Any, mapping: Mapping[str, str]) -> tuple[str, Fields]:
    """As `recognise`, of the row with its fields renamed: those that were named decide, where they make up a form."""
    if not mapping or not isinstance(value, dict):
        return recognise(value)
    found = {known: lookup(value, theirs) for known, theirs in mapping.items()}
    named = {known: given for known, given in found.items() if given is not MISSING}
    taken = {theirs.split(".")[0] for theirs in mapping.values()}
    fields = {**{name: given for name, given in value.items() if name not in taken}, **named}
    alone = next((form for form in FORMS if FORMS[form].fits(named)), None)
    return (alone, fields) if alone is not None else recognise(fields)


def check_fields(value: Any, mapping: Mapping[str, str], file: str) -> None:
    """Raise UserError where the first row of a file lacks a field that was named."""
    for known, theirs in mapping.items():
        if lookup(value, theirs) is MISSING:
            names = list(map(str, value)) if isinstance(value, dict) else []
            there = f"it has {', '.join(names)}" if names else "its rows have no fields"
            hint = did_you_mean(theirs, names)
            raise UserError(shown(f"--fields {known}={theirs}: {file} has no field {theirs}{hint} ({there})"))


def lookup(value: Any, path: str) -> Any:
    """The field of that name, or at that path; MISSING where there is none."""
    if isinstance(value, dict) and path in value:
        return value[path]
    for name in path.split("."):
        if not isinstance(value, dict) or name not in value:
            return MISSING
        value = value[name]
    return value
