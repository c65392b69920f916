"""Overrides on the command line: `train.max_steps=5`, `strategy=zero2+offload_all`, `model.trainable.0.freeze=true`.

The value is YAML. An override of one field of an exclusive pair drops what the file says of the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from zerofit.config.errors import UserError
from zerofit.config.schema import parse_track
from zerofit.config.strategy import parse_strategy
from zerofit.config.yaml_lines import parse

EXCLUSIVE = (
    ("model.shape", "model.pretrained"),
    ("optimizer.lr", "optimizer.blr"),
    ("optimizer.warmup.steps", "optimizer.warmup.epochs", "optimizer.warmup.fraction"),
    ("checkpoint.every_steps", "checkpoint.every_epochs"),
    ("evaluate.every_steps", "evaluate.every_epochs"),
    ("strategy.accelerate", "strategy.name"),
    ("strategy.accelerate", "strategy.deepspeed"),
    ("strategy.accelerate", "strategy.offload"),
)


@dataclass(frozen=True)
class Override:
    """One `field=value`."""

    text: str
    """As written."""
    place: tuple[str, ...]
    """The field, split at its dots."""
    value: Any
    """What it becomes."""

    @property
    def where(self) -> str:
        """What stands for file and line in messages."""
        return f"command line: {self.text}"


def parse_override(text: str) -> Override:
    """Raises UserError where `text` is not `field=value`, or the value is not YAML."""
    field, equals, value = text.partition("=")
    place = tuple(field.strip().split("."))
    if not equals or not all(place):
        raise UserError(f"command line: {text!r} is not an override: write field=value, for example train.max_steps=5")
    return Override(text, place, parse(value, f"command line: {text}", numbered=False).value)


def apply_overrides(raw: dict[str, Any], overrides: Sequence[Override]) -> dict[str, Any]:
    """The recipe's mapping with the overrides laid over it, in order; `raw` stays as it is. Raises UserError."""
    for override in overrides:
        if override.value is not None:
            for rival in _rivals(override.place):
                raw = _without(_long(raw, override), rival)
    for override in overrides:
        raw = _set(_long(raw, override), override.place, _long_value(raw, override), override)
    return raw


def _rivals(place: tuple[str, ...]) -> list[tuple[str, ...]]:
    field = ".".join(place)
    return [tuple(other.split(".")) for group in EXCLUSIVE if field in group for other in group if other != field]


def _without(node: Any, place: tuple[str, ...]) -> Any:
    if not isinstance(node, dict) or place[0] not in node:
        return node
    if len(place) == 1:
        return {key: value for key, value in node.items() if key != place[0]}
    return {**node, place[0]: _without(node[place[0]], place[1:])}


def _long(raw: dict[str, Any], override: Override) -> dict[str, Any]:
    """`strategy: zero2` or `track: trackio` as a mapping, for an override of one of its fields."""
    section = override.place[0]
    if len(override.place) == 1 or section not in ("strategy", "track") or section not in raw:
        return raw
    return {**raw, section: long_form(section, raw[section])}


def long_form(section: str, value: Any) -> Any:
    """The mapping that a section's short form stands for; anything else as it is."""
    if section == "strategy" and isinstance(value, str):
        return _parsed(value)
    if section == "track" and isinstance(value, (str, list)):
        return parse_track(value)
    return value


def _long_value(raw: dict[str, Any], override: Override) -> Any:
    """`strategy=zero2` changes who holds what (name and offload), `track=wandb` the trackers, and no other field."""
    given, value = raw.get("strategy"), override.value
    if override.place == ("track",) and isinstance(raw.get("track"), dict) and isinstance(value, (str, list)):
        return {**raw["track"], **parse_track(value)}
    if override.place != ("strategy",) or not isinstance(value, str) or not isinstance(given, dict):
        return value
    long = _parsed(value)
    if not isinstance(long, dict):
        return value
    kept = _without(_without(given, ("offload", "optimizer")), ("offload", "params"))
    whole = ("accelerate", "deepspeed") if given.get("name") is None and given.get("deepspeed") else ("accelerate",)
    kept = {field: value for field, value in kept.items() if field not in whole}  # files that said all of the other one
    offload = kept.get("offload")
    if isinstance(offload, dict):
        long["offload"] = {**offload, **long.get("offload", {})}
    return {**kept, **long}


def _parsed(short: str) -> Any:
    """The mapping of a short form; a wrong one as it is, for the schema to refuse."""
    try:
        return parse_strategy(short)
    except ValueError:
        return short


def _set(node: Any, place: tuple[str, ...], value: Any, override: Override) -> Any:
    if not place:
        return value
    key, rest = place[0], place[1:]
    above = ".".join(override.place[: len(override.place) - len(place)])
    if isinstance(node, list):
        if not key.isdecimal() or int(key) >= len(node):
            raise UserError(f"{override.where}: {above} has entries 0 to {len(node) - 1}, not {key}")
        index = int(key)
        return [*node[:index], _set(node[index], rest, value, override), *node[index + 1 :]]
    if node is None and key.isdecimal():
        raise UserError(f"{override.where}: the recipe gives no {above} to change an entry of: set the whole list")
    if node is not None and not isinstance(node, dict):
        raise UserError(f"{override.where}: {above} is {node!r}, which has no fields")
    node = node or {}
    return {**node, key: _set(node.get(key), rest, value, override)}
