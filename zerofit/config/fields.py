"""The recipe's fields as a tree: which type stands at a place, and what a pydantic error location means in it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from zerofit.config.schema import Recipe
from zerofit.config.section import Section

Place = tuple[str | int, ...]


def locate(location: Sequence[str | int]) -> tuple[Place, Any]:
    """A pydantic location without the branch labels of unions (`model.vit.foo` -> `model.foo`), and the type there.

    The type is None where the schema says nothing (inside a free mapping, or at an unknown field).
    """
    place: list[str | int] = []
    kind: Any = Recipe
    for part in location:
        if branches(kind):
            kind = next((member for member in branches(kind) if part in tags(member)), None)
        elif part != "[key]":
            place.append(part)
            kind = child(kind, part)
    return tuple(place), kind


DISCRIMINATORS = ("kind", "source")
"""Fields whose value selects a section of a union: of `model`, of `data`."""


def tags(kind: Any) -> tuple[str, ...]:
    """The values of its discriminator that select this section in a union."""
    field = discriminator(kind)
    return () if field is None else choices(kind.model_fields[field].annotation)


def discriminator(kind: Any) -> str | None:
    """The field of a section that selects it in a union; null for one that is in none."""
    return next((name for name in DISCRIMINATORS if name in names(kind)), None)


def is_section(kind: Any) -> bool:
    """Whether a type is a section of the recipe."""
    return isinstance(kind, type) and issubclass(kind, Section)


def child(kind: Any, part: str | int) -> Any:
    """The type under `part` of a section or a tuple; None where there is none."""
    if is_section(kind):
        field = kind.model_fields.get(part)
        return None if field is None else bare(field.annotation)
    if get_origin(kind) is tuple and isinstance(part, int):
        members = get_args(kind)
        return bare(members[0] if members[-1] is Ellipsis else members[min(part, len(members) - 1)])
    return None


def bare(kind: Any) -> Any:
    """The type without `Annotated` and `| None`."""
    if get_origin(kind) is Annotated:
        return bare(get_args(kind)[0])
    if branches(kind):
        members = [member for member in branches(kind) if member is not NoneType]
        return bare(members[0]) if len(members) == 1 else Union[tuple(members)]  # noqa: UP007
    return kind


def branches(kind: Any) -> tuple[Any, ...]:
    """The members of a union."""
    return get_args(kind) if get_origin(kind) in (Union, UnionType) else ()


def choices(kind: Any) -> tuple[str, ...]:
    """What a Literal allows."""
    return get_args(kind) if get_origin(kind) is Literal else ()


def names(kind: Any) -> list[str]:
    """The fields of a section."""
    return list(kind.model_fields) if is_section(kind) else []


def dotted(kind: Any = Recipe, above: str = "") -> Iterator[str]:
    """Every field below a section (of every kind of model), as `train.seed`; the section's own come first."""
    below: list[tuple[Any, str]] = []
    for name in names(kind):
        yield above + name
        at = child(kind, name)
        below += [(member, f"{above}{name}.") for member in (at, *branches(at)) if is_section(member)]
    for section, path in below:
        yield from dotted(section, path)
